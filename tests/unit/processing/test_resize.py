# SPDX-License-Identifier: Apache-2.0
"""Bicubic resizing: Pillow itself is the oracle."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlakit.processing.resize import resize_bicubic_exact, resize_bicubic_fast

SIDES = st.integers(2, 120)


def pillow(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    # One axis per call: Pillow 13 takes the rows first for some shapes, all others the columns.
    resized = []
    for image in images.permute(0, 2, 3, 1).contiguous().numpy():
        columns = Image.fromarray(image).resize((width, image.shape[0]), Image.Resampling.BICUBIC)
        resized.append(np.asarray(columns.resize((width, height), Image.Resampling.BICUBIC)))
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)


@settings(max_examples=60, deadline=None)
@given(height=SIDES, width=SIDES, new_height=SIDES, new_width=SIDES, seed=st.integers(0, 99))
def test_exact_resize_equals_pillow_to_the_bit(
    height: int, width: int, new_height: int, new_width: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Extremes overshoot the most: the cubic kernel has negative lobes.
    images = torch.randint(0, 256, (2, 3, height, width), generator=generator, dtype=torch.uint8)
    images[1] = torch.where(images[1] > 127, 255, 0)
    ours = resize_bicubic_exact(images, new_height, new_width)
    assert torch.equal(ours, pillow(images, new_height, new_width))


def test_very_tall_images_take_the_rows_first_as_pillow_12_does() -> None:
    images = torch.randint(0, 256, (1, 3, 447, 3), dtype=torch.uint8)
    fewer_rows = pillow(images, 28, 3)
    assert torch.equal(resize_bicubic_exact(images, 28, 28), pillow(fewer_rows, 28, 28))


def test_an_image_that_fits_is_returned_as_it_is() -> None:
    images = torch.zeros(1, 3, 28, 28, dtype=torch.uint8)
    assert resize_bicubic_exact(images, 28, 28).data_ptr() == images.data_ptr()
    assert resize_bicubic_fast(images, 28, 28) is images


def test_fast_resize_stays_within_two_levels_of_pillow() -> None:
    images = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)
    difference = resize_bicubic_fast(images, 84, 112).int() - pillow(images, 84, 112).int()
    assert difference.abs().max() <= 2
