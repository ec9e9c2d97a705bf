# SPDX-License-Identifier: Apache-2.0
"""Rows of different lengths to one rectangle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor


def pad_rows(
    rows: Sequence[Tensor], value: int, side: Literal["left", "right"]
) -> tuple[Tensor, Tensor]:
    """Return the rows in one tensor and the mask of what is real.

    Args:
        rows: 1-D tensors of one dtype.
        value: what fills the rest.
        side: where the filling goes.

    Returns:
        values (rows, longest), and mask (rows, longest) int64 with 1 where a value is real.
    """
    longest = max(map(len, rows))
    values = rows[0].new_full((len(rows), longest), value)
    mask = torch.zeros((len(rows), longest), dtype=torch.int64)
    for index, row in enumerate(rows):
        where = slice(longest - len(row), None) if side == "left" else slice(0, len(row))
        values[index, where] = row
        mask[index, where] = 1
    return values, mask


def pad_rows_to(width: int, rows: Sequence[Sequence[int]], value: int) -> tuple[Tensor, Tensor]:
    """Return rows of ids in one tensor of a given width, filled up on the right.

    Args:
        width: at least that of the longest row.
        rows: ids.
        value: what fills the rest.

    Returns:
        ids (rows, width) int64, and mask (rows, width) bool, True where an id is real.
    """
    ids = torch.full((len(rows), width), value, dtype=torch.int64)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[index, : len(row)] = True
    return ids, mask
