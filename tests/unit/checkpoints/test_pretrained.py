# SPDX-License-Identifier: Apache-2.0
"""Weights are read strictly, and every fault is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from vlakit.checkpoints.pretrained import (
    load_state,
    read_config,
    save_state,
    stored_tensors,
    weight_files,
)
from vlakit.errors import CheckpointError

CPU = torch.device("cpu")


def _model(device: str = "cpu") -> nn.Sequential:
    with torch.device(device):
        return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def _stored(folder: Path, **changes: torch.Tensor | None) -> nn.Sequential:
    """Save a model with some tensors changed; None removes one."""
    model = _model()
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    renamed = {name.replace("_", "."): value for name, value in changes.items()}
    tensors = {k: v for k, v in {**tensors, **renamed}.items() if v is not None}
    save_file(tensors, folder / "model.safetensors")
    return model


@pytest.mark.parametrize("max_shard_bytes", [None, 60])
def test_what_is_saved_is_loaded(tmp_path: Path, max_shard_bytes: int | None) -> None:
    model = _model()
    save_state(model, tmp_path, max_shard_bytes=max_shard_bytes)
    assert (len(weight_files(tmp_path)) > 1) is (max_shard_bytes is not None)
    loaded = _model("meta")
    load_state(loaded, tmp_path, device=CPU)
    for name, value in model.state_dict().items():
        assert value.equal(loaded.state_dict()[name])
    assert not list(tmp_path.glob("*.partial"))


def test_values_take_the_type_of_the_model_and_a_place_of_their_own(tmp_path: Path) -> None:
    _stored(tmp_path)
    loaded = _model("meta").to(torch.bfloat16)
    load_state(loaded, tmp_path, device=CPU)
    assert loaded[0].weight.dtype == torch.bfloat16
    before = load_file(tmp_path / "model.safetensors")["0.weight"]
    same = _model("meta")
    load_state(same, tmp_path, device=CPU)
    with torch.no_grad():
        same[0].weight.fill_(7)
    assert load_file(tmp_path / "model.safetensors")["0.weight"].equal(before)


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    _stored(tmp_path, **{"0_bias": None, "1_weight": torch.zeros(2, 5), "extra": torch.zeros(1)})
    with pytest.raises(CheckpointError) as caught:
        load_state(_model("meta"), tmp_path, device=CPU)
    message = str(caught.value)
    assert "1 missing: 0.bias" in message
    assert "1 unexpected: extra" in message
    assert "1 misshaped: 1.weight [2, 5] (expected [2, 4])" in message
    assert str(tmp_path) in message


def test_integers_are_no_weights(tmp_path: Path) -> None:
    _stored(tmp_path, **{"0_bias": torch.zeros(4, dtype=torch.int64)})
    with pytest.raises(CheckpointError, match=r"0.bias of type I64"):
        load_state(_model("meta"), tmp_path, device=CPU)


def test_names_are_translated_and_only_a_prefix_is_filled(tmp_path: Path) -> None:
    model = _model()
    save_file(
        {f"old.{k}": v for k, v in model[0].state_dict().items()}, tmp_path / "model.safetensors"
    )
    loaded = _model()
    load_state(
        loaded, tmp_path, device=CPU, rename=lambda key: key.replace("old.", "0."), prefix="0."
    )
    assert loaded[0].weight.equal(model[0].weight)
    assert not loaded[1].weight.equal(model[1].weight)


@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty"])
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    _stored(tmp_path)
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(
        {"truncated": content[:-9], "foreign": b"PK\x03\x04" * 64, "empty": b""}[damage]
    )
    with pytest.raises(CheckpointError, match=r"model.safetensors is no complete safetensors file"):
        list(stored_tensors(tmp_path))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config.json is missing"):
        read_config(tmp_path)
    with pytest.raises(CheckpointError, match=r"has no weights; expected model.safetensors"):
        weight_files(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"Found pytorch_model.bin: convert it"):
        weight_files(tmp_path)
    index = {"weight_map": {"0.weight": "gone.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"lacks gone.safetensors"):
        weight_files(tmp_path)


@pytest.mark.parametrize(("text", "message"), [("{", "cannot be read as JSON"), ("[]", "a list")])
def test_unusable_json_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_config(tmp_path)
