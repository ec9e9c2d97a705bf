# SPDX-License-Identifier: Apache-2.0
"""Guesses of the ids that follow, for decoding several of them with one forward pass.

A step reads all weights for one token; for four tokens it reads them once too. So guesses cost
little where memory bounds a step, and whatever part of them is right saves steps. A robot that
plans anew before its chunk has run out sees almost what it saw, and says almost what it said.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from vlakit.policies.pi0_fast.run import Run

Speculation = Literal["off", "previous_chunk", "ngram"]

DRAFTED = 3
"""Ids that are guessed at a time; more are hardly ever right, see `docs/performance.md`."""


def drafts(run: Run, kind: Speculation, count: int) -> Tensor:
    """Return guesses of the columns behind each row's last one, (batch, count); -1 for none.

    `previous_chunk` guesses what stood at the same places of the row's last chunk; `ngram` what
    last followed the same two columns, or else the same one, in that chunk and in this one.

    Args:
        run: the rows, each with at least one column.
        kind: where guesses come from.
        count: of them.
    """
    assert run.previous is not None
    ahead = torch.arange(count, device=run.step.device)
    if kind == "previous_chunk":
        return _at(run.previous, run.step[:, None] + ahead)
    said = torch.cat((run.previous, run.columns), dim=1)  # (batch, places)
    place = torch.arange(said.shape[1], device=said.device)
    here = run.previous.shape[1] + run.step[:, None] - 1
    before = said.gather(1, here - 1)
    same = (said == run.chosen[:, None]) & (place < here)
    pair = same & (said.roll(1, dims=1) == before)
    # The last place of a pair counts more than that of a single column.
    worth = torch.where(pair, place + said.shape[1], torch.where(same, place, -1))
    best, where = worth.max(dim=1, keepdim=True)
    return torch.where(best >= 0, _at(said, where + 1 + ahead), -1)


def _at(columns: Tensor, places: Tensor) -> Tensor:
    """Return columns at places, (batch, n); -1 beyond the end."""
    last = columns.shape[1] - 1
    return torch.where(places <= last, columns.gather(1, places.clamp(max=last)), -1)
