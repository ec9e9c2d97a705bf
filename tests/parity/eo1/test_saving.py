# SPDX-License-Identifier: Apache-2.0
"""A saved policy is a whole checkpoint: it loads and acts as the one it came from, on its own."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.fixtures_root import FIXTURE_ROOT, cases
from tests.parity.eo1.recorded import RecordedCase
from vlakit.policies.eo1 import EO1Config, EO1Policy
from vlakit.processing import load_processors

TOKENIZER = FIXTURE_ROOT / "tokenizers" / "tiny-qwen2.5-vl"


@pytest.fixture(params=cases("eo1"))
def case(request: pytest.FixtureRequest) -> RecordedCase:
    return RecordedCase(request.param)


def test_a_saved_policy_acts_as_the_one_it_came_from(
    case: RecordedCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.policy(vlm_base=TOKENIZER).save_pretrained(tmp_path / "copy")
    monkeypatch.chdir(tmp_path)  # where no relative name of the recording leads anywhere
    preprocess, postprocess = load_processors(tmp_path / "copy")
    policy = EO1Policy.from_pretrained(tmp_path / "copy")
    raw = case.tensors("raw_batch")
    batch = preprocess(
        {name: value for name, value in raw.items() if not name.startswith("action")}
        | {"task": case.note["tasks"]}
    )
    noise = case.noise["infer_noise"]
    chunk = policy.predict_action_chunk(batch, noise=noise)
    original = case.policy().predict_action_chunk(case.batch("infer"), noise=noise)
    assert torch.equal(chunk, original)
    _, expected = load_processors(case.checkpoint, vlm_base=TOKENIZER)
    assert torch.equal(postprocess(chunk), expected(original))


def test_changed_settings_are_saved_with_the_processors(tmp_path: Path) -> None:
    case = RecordedCase(cases("eo1")[0])
    changes = {"image_max_pixels": 64 * 28 * 28, "vlm_base": TOKENIZER}
    case.policy(**changes).save_pretrained(tmp_path)
    preprocess, _ = load_processors(tmp_path)
    expected, _ = load_processors(case.checkpoint, **changes)
    raw = case.tensors("raw_batch") | {"task": case.note["tasks"]}
    assert torch.equal(preprocess(raw)["pixel_values"], expected(raw)["pixel_values"])


def test_a_policy_saved_over_its_own_checkpoint_stays_whole(tmp_path: Path) -> None:
    case = RecordedCase(cases("eo1")[0])
    case.policy(vlm_base=TOKENIZER).save_pretrained(tmp_path)
    before = {path.name: load_file(path) for path in tmp_path.glob("*.safetensors")}
    before = {file: {k: v.clone() for k, v in state.items()} for file, state in before.items()}
    EO1Policy.from_pretrained(tmp_path).save_pretrained(tmp_path)
    for file, tensors in before.items():
        after = load_file(tmp_path / file)
        assert after.keys() == tensors.keys()
        assert all(torch.equal(after[name], value) for name, value in tensors.items()), file


def test_a_tokenizer_that_is_not_here_is_reported_and_the_weights_are_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = RecordedCase(cases("eo1")[0])
    with caplog.at_level(logging.WARNING):
        case.policy(vlm_base="nobody/knows").save_pretrained(tmp_path)
    assert "lacks its tokenizer" in caplog.text
    assert not (tmp_path / "tokenizer").exists()
    EO1Policy.from_pretrained(tmp_path)
    load_processors(tmp_path, vlm_base=TOKENIZER)


def test_a_new_policy_is_saved_with_the_tokenizer_of_its_backbone(tmp_path: Path) -> None:
    stored = RecordedCase(cases("eo1")[0]).policy().config
    config = stored.override({"vlm_base": "tiny-qwen2.5-vl", "vlm_config": None})
    assert isinstance(config, EO1Config)
    policy = EO1Policy(EO1Config.from_json(config.to_json() | {"vlm_config": None}))
    policy.save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(text.replace('"tiny-qwen2.5-vl"', '"nobody/knows"'))
    names = {"observation.state": 7, "action": 4}
    zeros_and_ones = {
        name: {"mean": torch.zeros(width), "std": torch.ones(width)}
        for name, width in names.items()
    }
    preprocess, _ = load_processors(tmp_path, stats=zeros_and_ones)
    assert preprocess.find("eo1_qwen_processor") is not None
