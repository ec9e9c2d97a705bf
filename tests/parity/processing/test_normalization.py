# SPDX-License-Identifier: Apache-2.0
"""Normaliser and inverse against what LeRobot 0.6.1 computed: equal to the bit."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from safetensors.torch import load_file

from tests.fixtures_root import FIXTURE_ROOT
from vlakit.errors import ProcessingError
from vlakit.processing.normalize import Normalizer, Unnormalizer

RECORDED = load_file(FIXTURE_ROOT / "tokenizer_cases" / "normalization.safetensors")
NOTE = json.loads((FIXTURE_ROOT / "tokenizer_cases" / "normalization.json").read_text())
KEYS = ("observation.state", "observation.images.cam", "action")
TYPES = {"observation.state": "STATE", "observation.images.cam": "VISUAL", "action": "ACTION"}
FEATURES = {
    key: {"type": TYPES[key], "shape": list(RECORDED[f"input.{key}"].shape[1:])} for key in KEYS
}
INPUT = {key: RECORDED[f"input.{key}"] for key in KEYS}
CASES = list(itertools.product(NOTE["modes"], NOTE["eps"]))


def stats(without: str = "") -> dict[str, dict[str, torch.Tensor]]:
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in RECORDED.items():
        if key.startswith("stats."):
            name, _, stat = key.removeprefix("stats.").rpartition(".")
            found.setdefault(name, {})[stat] = value
    found.pop(without, None)
    return found


def step(cls: type, mode: str, eps: float = 1e-8, **settings: object) -> Normalizer:
    return cls(FEATURES, dict.fromkeys(TYPES.values(), mode), stats(), eps, **settings)


@pytest.mark.parametrize(("mode", "eps"), CASES)
def test_normalized_values_equal_lerobot(mode: str, eps: float) -> None:
    normalized = step(Normalizer, mode, eps, floor="reference")(INPUT)
    back = step(Unnormalizer, mode, eps, floor="reference")(normalized)
    for key in KEYS:
        assert torch.equal(normalized[key], RECORDED[f"{mode}.eps{eps}.normalized.{key}"])
        assert torch.equal(back[key], RECORDED[f"{mode}.eps{eps}.roundtrip.{key}"])


@pytest.mark.parametrize(("mode", "eps"), CASES)
def test_unnormalized_values_equal_lerobot(mode: str, eps: float) -> None:
    action = torch.linspace(-2, 2, INPUT["action"].numel()).view_as(INPUT["action"])
    real = step(Unnormalizer, mode, eps, floor="reference")({"action": action})["action"]
    assert torch.equal(real, RECORDED[f"{mode}.eps{eps}.unnormalized_linspace.action"])


@pytest.mark.parametrize("mode", NOTE["modes"])
def test_statistics_are_cast_to_the_dtype_of_the_input(mode: str) -> None:
    batch = {
        "action": INPUT["action"].double(),
        "observation.state": INPUT["observation.state"].bfloat16(),
    }
    normalized = step(Normalizer, mode, floor="reference")(batch)
    assert torch.equal(normalized["action"], RECORDED[f"{mode}.mixed_dtype.action_f64"])
    assert torch.equal(normalized["observation.state"], RECORDED[f"{mode}.mixed_dtype.state_bf16"])


@pytest.mark.parametrize(("mode", "eps"), CASES)
def test_the_floor_changes_near_constant_dimensions_only(mode: str, eps: float) -> None:
    reference = step(Normalizer, mode, eps, floor="reference")(INPUT)
    floored = step(Normalizer, mode, eps)
    assert set(floored.near_constant()) <= {"action", "observation.state"}
    for key in ("action", "observation.state"):
        assert torch.equal(floored(INPUT)[key][..., 1:], reference[key][..., 1:])


def test_missing_statistics_are_an_error_where_lerobot_passes_the_raw_action_on() -> None:
    assert torch.equal(RECORDED["no_action_stats.action"], INPUT["action"])
    modes = dict.fromkeys(TYPES.values(), "MEAN_STD")
    normalizer = Normalizer(FEATURES, modes, stats(without="action"))
    with pytest.raises(
        ProcessingError, match=r"'action' is scaled by MEAN_STD, which needs .*mean"
    ):
        normalizer({"action": INPUT["action"]})
