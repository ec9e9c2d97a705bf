# SPDX-License-Identifier: Apache-2.0
"""EO-1's whole pipelines against the batches that LeRobot 0.6.1 processed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.fixtures_root import FIXTURE_ROOT, cases
from vlakit.processing import Pipeline, load_processors

TOKENIZER = FIXTURE_ROOT / "tokenizers" / "tiny-qwen2.5-vl"


class Case:
    """One recorded case; some share the inputs of another."""

    def __init__(self, name: str) -> None:
        self.folder = FIXTURE_ROOT / "eo1" / name
        self.note = json.loads((self.folder / "case.json").read_text())
        self.inputs = self.folder / self.note.get("inputs_from", ".")
        self.checkpoint = self.folder / "checkpoint"

    def raw(self, mode: str) -> dict[str, Any]:
        raw: dict[str, Any] = load_file(self.inputs / "raw_batch.safetensors")
        if mode == "infer":
            del raw["action"], raw["action_is_pad"]
        return raw | {"task": self.note["tasks"]}

    def expected(self, mode: str) -> dict[str, torch.Tensor]:
        expected = load_file(self.inputs / f"{mode}_processed.safetensors")
        if "pixel_values" not in expected:
            train = load_file(self.inputs / "train_processed.safetensors")
            expected |= {name: train[name] for name in ("pixel_values",) if name in train}
        return expected


@pytest.fixture(params=cases("eo1"))
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


@pytest.mark.parametrize("mode", ["train", "infer"])
def test_processed_batch_equals_lerobot(case: Case, mode: str) -> None:
    preprocess, _ = load_processors(case.checkpoint, vlm_base=TOKENIZER)
    batch = preprocess(case.raw(mode))
    for name, expected in case.expected(mode).items():
        assert batch[name].dtype == expected.dtype, name
        assert torch.equal(batch[name], expected), name
    for name, expected in case.note[mode]["scalars_after_preprocess"].items():
        assert batch[name] == expected, name


def test_uint8_cameras_give_the_same_batch_as_float_ones(case: Case) -> None:
    preprocess, _ = load_processors(case.checkpoint, vlm_base=TOKENIZER)
    raw = case.raw("infer")
    cameras = [name for name in raw if name.startswith("observation.images.")]
    as_uint8 = {name: raw[name].clamp(0, 1).mul(255).round().to(torch.uint8) for name in cameras}
    pixel_values = preprocess(raw | as_uint8)["pixel_values"]
    assert torch.equal(pixel_values, preprocess(raw)["pixel_values"])


def test_a_single_observation_gives_the_row_of_the_batch(case: Case) -> None:
    preprocess, _ = load_processors(case.checkpoint, vlm_base=TOKENIZER)
    raw = case.raw("infer")
    first = {name: value[0] for name, value in raw.items()}
    single, batch = preprocess(first), preprocess(raw)
    assert torch.equal(single["observation.state"], batch["observation.state"][:1])
    length = single["input_ids"].shape[1]
    assert torch.equal(single["input_ids"], batch["input_ids"][:1, -length:])
    num_patches = len(single["pixel_values"])
    assert torch.equal(single["pixel_values"], batch["pixel_values"][:num_patches])


def test_postprocessed_actions_equal_lerobot(case: Case) -> None:
    _, postprocess = load_processors(case.checkpoint, vlm_base=TOKENIZER)
    expected = load_file(case.folder / "infer_expected.safetensors")
    names = [name for name in expected if f"{name}_post" in expected]
    assert names
    for name in names:
        assert torch.equal(postprocess(expected[name]), expected[f"{name}_post"]), name


def test_saving_a_loaded_pipeline_gives_the_same_files(case: Case, tmp_path: Path) -> None:
    preprocess, postprocess = (
        Pipeline.load(case.checkpoint, f"policy_{kind}.json", overrides)
        for kind, overrides in (
            ("preprocessor", {"eo1_qwen_processor": {"processor_name": str(TOKENIZER)}}),
            ("postprocessor", {}),
        )
    )
    preprocess.save(tmp_path)
    postprocess.save(tmp_path)
    stored = sorted(case.checkpoint.glob("policy_*"))
    assert [path.name for path in sorted(tmp_path.glob("policy_*"))] == [p.name for p in stored]
    for path in stored:
        if path.suffix == ".json":
            written, read = (
                json.loads((at / path.name).read_text()) for at in (tmp_path, path.parent)
            )
            _forget_tokenizer_name(written)
            _forget_tokenizer_name(read)
            assert written == read
            continue
        written, read = load_file(tmp_path / path.name), load_file(path)
        assert written.keys() == read.keys()
        assert all(torch.equal(written[name], read[name]) for name in read)


def _forget_tokenizer_name(content: dict[str, Any]) -> None:
    for step in content["steps"]:
        step["config"].pop("processor_name", None)


def test_a_saved_checkpoint_needs_no_tokenizer_from_elsewhere(case: Case, tmp_path: Path) -> None:
    preprocess, postprocess = load_processors(case.checkpoint, vlm_base=TOKENIZER)
    preprocess.save(tmp_path)
    postprocess.save(tmp_path)
    (tmp_path / "config.json").write_text((case.checkpoint / "config.json").read_text())
    moved = json.loads((tmp_path / "policy_preprocessor.json").read_text())
    moved["steps"][4]["config"]["processor_name"] = "nobody/knows"
    (tmp_path / "policy_preprocessor.json").write_text(json.dumps(moved))
    again, _ = load_processors(tmp_path)
    assert torch.equal(again(case.raw("infer"))["input_ids"], case.expected("infer")["input_ids"])
