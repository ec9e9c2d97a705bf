# SPDX-License-Identifier: Apache-2.0
"""Smart resize and patching: properties, and Hugging Face's slow processor as oracle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlakit.errors import CheckpointError, ProcessingError
from vlakit.processing.images import (
    PatchSettings,
    patch_grid,
    qwen_patches,
    smart_resize,
    to_uint8,
)

SMALL = PatchSettings(min_pixels=28 * 28, max_pixels=112 * 112)


@settings(max_examples=200, deadline=None)
@given(height=st.integers(8, 1400), width=st.integers(8, 1400))
def test_smart_resize_gives_multiples_within_the_bounds(height: int, width: int) -> None:
    rows, columns = smart_resize(height, width, 28, 50176, 100352)
    assert rows % 28 == 0
    assert columns % 28 == 0
    assert rows * columns <= 100352 or min(rows, columns) == 28
    assert rows * columns >= 50176


def test_smart_resize_refuses_a_strip() -> None:
    with pytest.raises(ProcessingError, match="2x500 pixels is too elongated"):
        smart_resize(2, 500, 28, 50176, 100352)


def test_float_images_are_clamped_and_rounded_half_to_even() -> None:
    images = torch.tensor([-0.5, 0.5 / 255, 1.5 / 255, 2.5 / 255, 1.0, 7.0])
    assert to_uint8(images).tolist() == [0, 0, 2, 2, 255, 255]


def test_images_of_a_batch_do_not_influence_one_another() -> None:
    images = torch.randint(0, 256, (4, 3, 50, 70), dtype=torch.uint8)
    together = qwen_patches(images, SMALL)
    alone = torch.cat([qwen_patches(image[None], SMALL) for image in images])
    assert torch.equal(together, alone)


def test_patches_are_written_where_they_are_wanted() -> None:
    images = torch.randint(0, 256, (2, 3, 56, 84), dtype=torch.uint8)
    out = torch.zeros(2, 30, 1176)
    qwen_patches(images, SMALL, out=out[:, 4:28])
    assert torch.equal(out[:, 4:28], qwen_patches(images, SMALL))
    assert not out[:, :4].any()
    assert not out[:, 28:].any()


@pytest.mark.parametrize("size", [(84, 84), (61, 97), (30, 200)])
def test_patches_equal_the_installed_hugging_face_processor(size: tuple[int, int]) -> None:
    pil = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    oracle = pil.Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 112**2})
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    expected = oracle(
        images=[image.numpy()], return_tensors="pt", input_data_format="channels_first"
    )
    assert torch.equal(qwen_patches(image[None], SMALL)[0], expected["pixel_values"])
    assert [[1, *patch_grid(*size, SMALL)]] == expected["image_grid_thw"].tolist()


def test_settings_come_from_the_image_processor_file(tmp_path: Path) -> None:
    content = {"patch_size": 16, "image_mean": [0.5, 0.5, 0.5], "min_pixels": 1}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    updated = SMALL.updated_from(tmp_path)
    assert (updated.patch_size, updated.mean, updated.min_pixels) == (16, (0.5,) * 3, 28 * 28)


def test_settings_come_from_the_processor_file_of_newer_releases(tmp_path: Path) -> None:
    content = {"image_processor": {"patch_size": 16, "image_mean": [0.5, 0.5, 0.5]}}
    (tmp_path / "processor_config.json").write_text(json.dumps(content))
    updated = SMALL.updated_from(tmp_path)
    assert (updated.patch_size, updated.mean) == (16, (0.5,) * 3)


def test_missing_image_settings_are_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json is missing: it says how"):
        SMALL.updated_from(tmp_path)


def test_a_damaged_image_processor_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"patch_size": 1')
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json cannot be read as JSON"):
        SMALL.updated_from(tmp_path)
