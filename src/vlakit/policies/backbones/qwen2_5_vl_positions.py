# SPDX-License-Identifier: Apache-2.0
"""Positions on three axes (time, row, column) of a sequence of text and images.

Text moves all three axes on by one. An image that starts at p spreads over rows p, p+1, ... and
columns p, p+1, ...; the token after it stands at p + max(rows, columns). Padding stands at 0 and
moves nothing. Source: Qwen2.5-VL technical report, multimodal rotary position embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor


def multimodal_positions(
    is_image: Tensor, is_real: Tensor, merged_grids: list[tuple[int, int]]
) -> Tensor:
    """Return the positions of every token.

    Args:
        is_image: (batch, length) boolean, True at image tokens.
        is_real: (batch, length), nonzero where a token is not padding.
        merged_grids: rows and columns in merged tokens of every image of the batch, in reading
            order; the areas add up to the number of image tokens.

    Returns:
        (3, batch, length) int64.
    """
    is_real = is_real.bool()
    device = is_image.device
    steps = (is_real & ~is_image).long()  # (batch, length): how far each token moves the axes
    row, column = _inside(merged_grids, device)
    if merged_grids:
        # An image moves the axes once, at its last token.
        sides = torch.tensor([max(grid) for grid in merged_grids], device=device)
        areas = torch.tensor([rows * columns for rows, columns in merged_grids], device=device)
        image_steps = torch.zeros(len(row), dtype=torch.long, device=device)
        image_steps[areas.cumsum(0) - 1] = sides
        steps = steps.masked_scatter(is_image, image_steps)
    start = steps.cumsum(1) - steps
    zero = torch.zeros_like(start)
    offsets = torch.stack(
        (zero, zero.masked_scatter(is_image, row), zero.masked_scatter(is_image, column))
    )
    return (start + offsets) * is_real


def _inside(merged_grids: list[tuple[int, int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return row and column of each image token inside its image, over all images."""
    rows, columns, by_shape = [], [], {}
    for grid in merged_grids:
        if grid not in by_shape:
            index = torch.arange(grid[0] * grid[1], device=device)
            by_shape[grid] = (index // grid[1], index % grid[1])
        rows.append(by_shape[grid][0])
        columns.append(by_shape[grid][1])
    empty = torch.zeros(0, dtype=torch.long, device=device)
    return torch.cat([empty, *rows]), torch.cat([empty, *columns])
