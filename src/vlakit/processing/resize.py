# SPDX-License-Identifier: Apache-2.0
"""Bicubic resizing of uint8 images, equal to Pillow's to the last bit, on any device.

Pillow resizes 8-bit images in two passes, columns then rows, with weights in 22-bit fixed point
and a rounding to 8 bits after each pass (`src/libImaging/Resample.c`, version 12.3, the newest that
LeRobot 0.6 takes; 13 takes the rows first for more shapes, which moves values by some levels where
one side grows and the other shrinks). Everything is integer, so the result depends neither on the
order of the sums nor on the device, and a batch of images on a GPU gives what Pillow gives on a
robot.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

_FRACTION_BITS = 32 - 8 - 2
_CUBIC_A = -0.5
_CUBIC_SUPPORT = 2.0
_VERY_TALL = 100
"""Images more than this many times as tall as wide lose rows before their columns change."""


def resize_bicubic_exact(images: Tensor, height: int, width: int) -> Tensor:
    """Return the images resized as `PIL.Image.resize(..., BICUBIC)` does.

    Args:
        images: (..., old_height, old_width) uint8.
        height: rows of the result.
        width: columns of the result.

    Returns:
        (..., height, width) uint8; the same tensor when the size already fits.
    """
    old_height, old_width = images.shape[-2:]
    if height < old_height and old_height > _VERY_TALL * old_width:
        images = _resample_rows(images.contiguous(), height)
    if images.shape[-1] != width:
        columns_first = images.transpose(-1, -2).contiguous()  # (..., old_width, old_height)
        images = _resample_rows(columns_first, width).transpose(-1, -2)
    if images.shape[-2] != height:
        images = _resample_rows(images.contiguous(), height)
    return images


def resize_bicubic_fast(images: Tensor, height: int, width: int) -> Tensor:
    """Return the images resized as torchvision does; up to two levels of 255 away from Pillow.

    Args:
        images: (n, channels, old_height, old_width) uint8.
        height: rows of the result.
        width: columns of the result.

    Returns:
        (n, channels, height, width) uint8.
    """
    if images.shape[-2:] == (height, width):
        return images
    size = (height, width)
    if images.device.type == "cpu":
        return torch.nn.functional.interpolate(images, size, mode="bicubic", antialias=True)
    # Only the CPU kernel takes uint8.
    resized = torch.nn.functional.interpolate(images.float(), size, mode="bicubic", antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def _resample_rows(images: Tensor, num_rows: int) -> Tensor:
    """Return (..., num_rows, columns) uint8 from (..., old_rows, columns) uint8."""
    half = 1 << (_FRACTION_BITS - 1)
    shape = (*images.shape[:-2], num_rows, images.shape[-1])
    total = torch.full(shape, half, dtype=torch.int32, device=images.device)
    source = images.to(torch.int32)
    for rows, weights in _taps_on(images.shape[-2], num_rows, images.device):
        total.addcmul_(source.index_select(-2, rows), weights)
    return (total >> _FRACTION_BITS).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=64)
def _taps_on(
    old_size: int, new_size: int, device: torch.device
) -> tuple[tuple[Tensor, Tensor], ...]:
    """Return, for each tap, the source rows (new_size,) and the weights (new_size, 1) int32."""
    rows, weights = _fixed_point_weights(old_size, new_size)
    return tuple(
        (
            torch.tensor([row[tap] for row in rows], device=device),
            torch.tensor([weight[tap] for weight in weights], dtype=torch.int32, device=device)[
                :, None
            ],
        )
        for tap in range(len(rows[0]))
    )


def _fixed_point_weights(old_size: int, new_size: int) -> tuple[list[list[int]], list[list[int]]]:
    """Return source rows and fixed-point weights of every new row; all lists have one length.

    Source: Pillow, `precompute_coeffs` and `normalize_coeffs_8bpc` in `src/libImaging/Resample.c`:
    float64 weights, normalised to sum 1, then rounded half away from zero.
    """
    scale = old_size / new_size
    filter_scale = max(scale, 1.0)
    support = _CUBIC_SUPPORT * filter_scale
    rows, weights = [], []
    for new_row in range(new_size):
        center = (new_row + 0.5) * scale
        first = max(int(center - support + 0.5), 0)
        last = min(int(center + support + 0.5), old_size)
        raw = [_cubic((row - center + 0.5) * (1.0 / filter_scale)) for row in range(first, last)]
        total = 0.0
        for weight in raw:  # not `sum`, which compensates for rounding from Python 3.12 on
            total += weight
        inverse = 1.0 / total
        scaled = [weight * inverse * (1 << _FRACTION_BITS) for weight in raw]
        rows.append(list(range(first, last)))
        weights.append([int(math.copysign(0.5, weight) + weight) for weight in scaled])
    length = max(map(len, rows))
    for row, weight in zip(rows, weights, strict=True):
        row += [0] * (length - len(row))
        weight += [0] * (length - len(weight))
    return rows, weights


def _cubic(x: float) -> float:
    """Keys' cubic kernel with a = -0.5."""
    x = abs(x)
    if x < 1.0:
        return ((_CUBIC_A + 2.0) * x - (_CUBIC_A + 3.0)) * x * x + 1
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * _CUBIC_A
    return 0.0
