# SPDX-License-Identifier: Apache-2.0
"""8-bit weights: close to the whole ones, for prediction only."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tests.unit.policies.pi0_fast.tiny_policy import (
    config,
    fast_tokenizer,
    processors,
    raw_batch,
    save,
)
from vlakit.datasets.config import DatasetConfig
from vlakit.errors import ConfigError
from vlakit.policies.backbones.quantized import addresses, is_quantized
from vlakit.policies.eo1.config import EO1Config
from vlakit.policies.pi0_fast import PI0FastPolicy
from vlakit.training.config import TrainFlags

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # torchao names what of it is not there
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    tokenizer = fast_tokenizer(tmp_path_factory.mktemp("fast"))
    return save(PI0FastPolicy(config(tokenizer)), tmp_path_factory.mktemp("policy"))


@pytest.mark.parametrize("engine", ["plain", "static"])
def test_hidden_states_are_close_and_chunks_well_formed(checkpoint: Path, engine: str) -> None:
    pytest.importorskip("torchao")
    whole = PI0FastPolicy.from_pretrained(checkpoint)
    rounded = PI0FastPolicy.from_pretrained(checkpoint, weight_quantization="int8", engine=engine)
    weight = rounded.model.paligemma.language_model.layers[0].get_parameter("mlp.up_proj.weight")
    assert is_quantized(weight)
    assert len(addresses(weight)) > 1
    batch = processors(whole.config)[0](raw_batch(2, with_actions=False))
    start = torch.full((2, 2), 7)
    ends = {"causal_from": 1, "max_new_tokens": 2}
    exact = whole.model.prefill(whole._inputs(batch), start, **ends).hidden
    near = rounded.model.prefill(rounded._inputs(batch), start, **ends).hidden
    difference = ((near - exact).abs().max() / exact.abs().max()).item()
    assert 0 < difference < 0.05
    assert rounded.predict_action_chunk(batch).isfinite().all()


def test_rounded_weights_are_not_saved(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    rounded = PI0FastPolicy.from_pretrained(checkpoint, weight_quantization="int8")
    with pytest.raises(ConfigError, match="weight_quantization=int8 is not saved"):
        rounded.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ConfigError, match=r"needs the package torchao.*vlakit\[int8\]"):
        PI0FastPolicy.from_pretrained(checkpoint, weight_quantization="int8")


def test_training_refuses_them() -> None:
    with pytest.raises(ConfigError, match="weight_quantization=int8 is for prediction"):
        TrainFlags(
            dataset=DatasetConfig(repo_id="local/any"),
            policy=EO1Config(weight_quantization="int8", push_to_hub=False),
        )
