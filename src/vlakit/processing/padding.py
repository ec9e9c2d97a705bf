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
