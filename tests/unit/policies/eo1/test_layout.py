# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vlakit.errors import ProcessingError
from vlakit.policies.eo1.layout import Layouts, TokenIds

PAD, TEXT, IMAGE, STATE, ACTION = 0, 1, 2, 3, 4
TOKENS = TokenIds(IMAGE, STATE, ACTION)
GRID = torch.tensor([[1, 4, 2]])
"""Two image tokens, one below the other."""
ROW = [TEXT, IMAGE, IMAGE, TEXT, STATE, TEXT, ACTION, ACTION, TEXT]


def batch(*rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, mask and grids of rows that are padded on the left."""
    longest = max(map(len, rows))
    ids = torch.tensor([[PAD] * (longest - len(row)) + row for row in rows])
    return ids, (ids != PAD).long(), GRID.expand(len(rows), -1)


def test_everything_is_found() -> None:
    layout = Layouts(horizon=2, merge=2).get(*batch(ROW), TOKENS)
    assert layout.first == 6
    assert layout.ids.tolist() == [ROW[:6]]
    assert layout.image_rows.tolist() == [1, 2]
    assert layout.state_columns.tolist() == [[4]]
    assert layout.is_real is None
    assert layout.positions.shape == (3, 1, 8)
    assert layout.positions[0, 0].tolist() == [0, 1, 1, 3, 4, 5, 6, 7]


def test_padding_to_a_multiple_moves_columns_and_nothing_else() -> None:
    plain = Layouts(horizon=2, merge=2).get(*batch(ROW), TOKENS)
    padded = Layouts(horizon=2, merge=2).get(*batch(ROW), TOKENS, multiple=16)
    assert padded.first == 16
    assert padded.ids[:, 10:].equal(plain.ids)
    assert padded.positions[:, :, 10:].equal(plain.positions)
    assert padded.image_rows.tolist() == [11, 12]
    assert padded.is_real is not None
    assert padded.is_real.tolist() == [[False] * 10 + [True] * 8]


def test_a_prompt_is_worked_out_once() -> None:
    layouts = Layouts(horizon=2, merge=2)
    first = layouts.get(*batch(ROW), TOKENS)
    assert layouts.get(*batch(ROW), TOKENS) is first
    assert layouts.get(*batch([TEXT, *ROW]), TOKENS) is not first
    assert layouts.get(*batch(ROW), TOKENS, multiple=16) is not first


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW[:7] + ROW[8:], r"\[1\] action tokens \(id 4\) per row; expected 2 in one piece"),
        ([*ROW[:7], TEXT, ACTION], r"expected 2 in one piece"),
        (ROW[:1] + ROW[2:], r"1 image tokens, but its images make 2"),
        ([TEXT if id_ == STATE else id_ for id_ in ROW], r"exactly one state token \(id 3\)"),
    ],
)
def test_other_prompts_are_refused(row: list[int], message: str) -> None:
    with pytest.raises(ProcessingError, match=message):
        Layouts(horizon=2, merge=2).get(*batch(row), TOKENS)


def test_rows_padded_on_the_right_are_refused() -> None:
    ids = torch.tensor([[*ROW, PAD], [TEXT, *ROW]])
    with pytest.raises(ProcessingError, match=r"start in columns \[6, 7\]"):
        Layouts(horizon=2, merge=2).get(ids, (ids != PAD).long(), GRID.expand(2, -1), TOKENS)
