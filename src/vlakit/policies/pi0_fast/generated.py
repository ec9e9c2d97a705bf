# SPDX-License-Identifier: Apache-2.0
"""What decoding returns, whichever way it goes, and how it draws a token."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Generated:
    """Tokens of a batch, row by row."""

    text_ids: list[list[int]]
    """As generated, with the tokens around the codes; nothing after the end marker."""
    codes: list[list[int]]
    """FAST ids; none in rows that failed."""
    failures: dict[int, str]
    """Row -> why it spells no chunk."""
    passes: list[int] = field(default_factory=list)
    """Forward passes after the prefill that each row took, where they were counted."""


def draw_column(probabilities: Tensor, uniforms: Tensor | None) -> Tensor:
    """Draw one column per row, (batch,), from probabilities (batch, columns).

    With uniforms, (batch,), a row's draw is the inverse of its cumulative distribution there, and
    so does not depend on the rows beside it.
    """
    if uniforms is None:
        return torch.multinomial(probabilities, 1).squeeze(1)
    cumulative = probabilities.float().cumsum(-1)
    is_beyond = cumulative > (uniforms * cumulative[:, -1])[:, None]
    # Sums made in parallel need not rise evenly: a column of probability 0 could seem to be hit, or
    # none at all.
    is_hit = is_beyond & (probabilities > 0)
    return torch.where(is_hit.any(-1), is_hit.int().argmax(-1), probabilities.argmax(-1))
