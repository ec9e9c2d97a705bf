# SPDX-License-Identifier: Apache-2.0
"""Image sizes and patches against Hugging Face's image processors for Qwen2-VL."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.fixtures_root import FIXTURE_ROOT
from vlakit.processing.images import PatchSettings, patch_grid, qwen_patches, smart_resize

NOTE = json.loads((FIXTURE_ROOT / "eo1_image_preproc" / "cases.json").read_text())
RECORDED = load_file(FIXTURE_ROOT / "eo1_image_preproc" / "cases.safetensors")


def settings(name: str, *, fast: bool) -> PatchSettings:
    case = NOTE["cases"][name]
    return PatchSettings(
        min_pixels=case["min_pixels"], max_pixels=case["max_pixels"], use_fast_processor=fast
    )


def test_smart_resize_equals_the_recorded_table() -> None:
    for row in NOTE["smart_resize_factor28"]:
        size = smart_resize(row["height"], row["width"], 28, row["min_pixels"], row["max_pixels"])
        assert list(size) == row["resized"], row


@pytest.mark.parametrize("name", NOTE["cases"])
@pytest.mark.parametrize("divisor", [None, 255])
def test_patches_equal_the_slow_processor(name: str, divisor: int | None) -> None:
    image = RECORDED[f"{name}.image_uint8"]
    patches = qwen_patches(image / divisor if divisor else image, settings(name, fast=False))
    assert torch.equal(patches[0], RECORDED[f"{name}.pil.pixel_values"])


@pytest.mark.parametrize("name", NOTE["cases"])
def test_patches_equal_the_fast_processor(name: str) -> None:
    patches = qwen_patches(RECORDED[f"{name}.image_uint8"], settings(name, fast=True))
    # The reference folds 1/255 into mean and std: the last bit of a float32 differs.
    expected = RECORDED[f"{name}.torchvision.pixel_values"]
    torch.testing.assert_close(patches[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NOTE["cases"])
def test_the_grid_equals_the_recorded_one(name: str) -> None:
    height, width = NOTE["cases"][name]["size"]
    grid = patch_grid(height, width, settings(name, fast=False))
    assert [[1, *grid]] == NOTE["cases"][name]["grid"]
