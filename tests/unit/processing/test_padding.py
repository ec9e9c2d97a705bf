# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch

from vlakit.processing.padding import pad_rows

ROWS = [torch.tensor([1, 2, 3]), torch.tensor([4])]


def test_rows_are_padded_on_the_right() -> None:
    values, mask = pad_rows(ROWS, 9, "right")
    assert values.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_rows_are_padded_on_the_left() -> None:
    values, mask = pad_rows(ROWS, 9, "left")
    assert values.tolist() == [[1, 2, 3], [9, 9, 4]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
