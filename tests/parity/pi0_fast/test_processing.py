# SPDX-License-Identifier: Apache-2.0
"""pi0-FAST's whole pipelines against the batches that LeRobot 0.6.1 processed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.fixtures_root import cases
from tests.parity.pi0_fast.recorded import TOKENIZERS, RecordedCase
from vlakit.errors import ConfigError, ProcessingError
from vlakit.processing import Pipeline, load_processors


@pytest.fixture(params=cases("pi0_fast"))
def case(request: pytest.FixtureRequest) -> RecordedCase:
    return RecordedCase(request.param)


@pytest.mark.parametrize("mode", ["train", "infer"])
def test_processed_batch_equals_lerobot(case: RecordedCase, mode: str) -> None:
    preprocess, _ = case.processors()
    batch = preprocess(case.raw(mode))
    for name, expected in case.tensors(f"{mode}_processed").items():
        assert batch[name].dtype == expected.dtype, name
        if expected.is_floating_point():
            torch.testing.assert_close(batch[name], expected, rtol=1e-6, atol=1e-6)
        else:
            assert torch.equal(batch[name], expected), name


def test_prompts_equal_lerobot(case: RecordedCase) -> None:
    if "preprocessor" not in case.note:
        pytest.skip("this case records no prompts")
    preprocess, _ = case.processors()
    prompts = preprocess(case.raw("infer"))["task"]
    assert prompts == case.note["preprocessor"]["full_prompts_after_state_step"]


def test_a_single_observation_gives_the_row_of_the_batch(case: RecordedCase) -> None:
    preprocess, _ = case.processors()
    raw = case.raw("infer")
    single, batch = preprocess({name: value[0] for name, value in raw.items()}), preprocess(raw)
    for name in ("observation.state", "observation.language.tokens"):
        assert torch.equal(single[name], batch[name][:1])


def test_postprocessed_chunks_equal_lerobot(case: RecordedCase) -> None:
    preprocess, postprocess = case.processors()
    preprocess(case.raw("infer"))
    expected = case.tensors("infer_expected")
    names = [name for name in expected if f"{name}_post" in expected]
    assert names
    for name in names:
        torch.testing.assert_close(
            postprocess(expected[name]), expected[f"{name}_post"], rtol=1e-6, atol=1e-6
        )


def test_saving_a_loaded_pipeline_gives_lerobots_files(case: RecordedCase, tmp_path: Path) -> None:
    for pipeline in case.processors():
        pipeline.save(tmp_path)
    stored = sorted(case.checkpoint.glob("policy_*"))
    assert [path.name for path in sorted(tmp_path.glob("policy_*"))] == [p.name for p in stored]
    for path in stored:
        if path.suffix == ".json":
            written, read = (
                json.loads((at / path.name).read_text()) for at in (tmp_path, path.parent)
            )
            for step, original in zip(written["steps"], read["steps"], strict=True):
                # Keys that LeRobot 0.6.1 forgets, and the copies of the tokenizers.
                added = step["config"].keys() - original["config"].keys()
                assert added <= {"fast_skip_tokens", "paligemma_tokenizer_name"}
                step["config"] = {
                    key: original["config"][key] if key.endswith("tokenizer_name") else value
                    for key, value in step["config"].items()
                    if key not in added
                }
                assert step.pop("artifacts", {}).keys() <= step["config"].keys()
            assert written == read
            continue
        written, read = load_file(tmp_path / path.name), load_file(path)
        assert written.keys() == read.keys()
        assert all(torch.equal(written[name], read[name]) for name in read)


def test_a_saved_checkpoint_needs_no_tokenizer_from_elsewhere(
    case: RecordedCase, tmp_path: Path
) -> None:
    for pipeline in case.processors():
        pipeline.save(tmp_path)
    (tmp_path / "config.json").write_text((case.checkpoint / "config.json").read_text())
    path = tmp_path / "policy_preprocessor.json"
    moved = json.loads(path.read_text())
    for step in moved["steps"]:
        for key in step["config"]:
            if key.endswith("tokenizer_name"):
                step["config"][key] = "nobody/knows"
    path.write_text(json.dumps(moved))
    again, _ = load_processors(tmp_path, **case.allowed)
    batch, expected = again(case.raw("train")), case.tensors("train_processed")
    for name in ("observation.language.tokens", "action.tokens"):
        assert torch.equal(batch[name], expected[name])


def test_what_lerobot_forgets_comes_from_the_settings() -> None:
    case = RecordedCase("trunc_b3_fp32")
    preprocess, _ = case.processors()
    step = preprocess.find("action_tokenizer_processor")
    assert vars(step)["fast_skip_tokens"] == 64
    assert vars(step)["paligemma_tokenizer_name"] == TOKENIZERS["text_tokenizer_name"]


def test_names_beside_artifacts_are_paths_and_not_kept(tmp_path: Path) -> None:
    case = RecordedCase("overfit")
    for pipeline in case.processors():
        pipeline.save(tmp_path)
    (tmp_path / "config.json").write_text((case.checkpoint / "config.json").read_text())
    path = tmp_path / "policy_preprocessor.json"
    content = json.loads(path.read_text())
    for step in content["steps"]:  # as LeRobot 0.6.2 writes it
        step["config"] |= step.get("artifacts", {})
        if step["registry_name"] == "action_tokenizer_processor":
            step["config"]["allow_truncation"] = True
    path.write_text(json.dumps(content))
    preprocess, _ = load_processors(tmp_path)
    assert vars(preprocess.find("tokenizer_processor"))["tokenizer_name"] == (
        "tokenizers/tiny-paligemma"
    )
    assert not vars(preprocess.find("action_tokenizer_processor"))["allow_truncation"]
    assert torch.equal(
        preprocess(case.raw("train"))["action.tokens"],
        case.tensors("train_processed")["action.tokens"],
    )


def test_too_long_prompts_and_chunks_are_refused_unless_cutting_is_allowed() -> None:
    case = RecordedCase("trunc_b3_fp32")
    preprocess, _ = case.processors(allow_truncation=False)
    with pytest.raises(ProcessingError, match=r"row \d has \d+ tokens.*tokenizer_max_length=24"):
        preprocess(case.raw("infer"))
    preprocess, _ = case.processors(allow_truncation=False, tokenizer_max_length=200)
    with pytest.raises(ConfigError, match=r"max_action_tokens=14 .*p99 is \d+"):
        preprocess(case.raw("train"))
    assert isinstance(preprocess, Pipeline)
