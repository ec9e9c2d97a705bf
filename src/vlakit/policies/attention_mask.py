# SPDX-License-Identifier: Apache-2.0
"""Who may look at whom. Masks are boolean, True where a query sees a key."""

from __future__ import annotations

import torch
from torch import Tensor


def has_left_padding(is_real: Tensor) -> bool:
    """Return whether some row has a padded position before a real one.

    Under causal attention padding on the right is invisible to real tokens, so only this case needs
    a mask.

    Args:
        is_real: (batch, length), nonzero at real tokens.
    """
    return bool((is_real[:, 1:] > is_real[:, :-1]).any())


def causal_padding_mask(is_real: Tensor, rows: Tensor | None = None) -> Tensor:
    """Return which keys the queries at some positions see: real ones that are not later.

    A padded query sees itself, and only itself: a row without any key would turn into NaN and
    spread through the values of the next layer.

    Args:
        is_real: (batch, keys), nonzero at real tokens.
        rows: (batch or 1, queries) positions that ask; None for all, in order.

    Returns:
        (batch, 1, queries, keys).
    """
    columns = torch.arange(is_real.shape[1], device=is_real.device)
    rows = columns[None, :, None] if rows is None else rows[..., None]
    visible = (columns <= rows) & is_real.bool()[:, None]  # (batch, queries, keys)
    return (visible | (columns == rows))[:, None]


def prefix_mask(is_real: Tensor, prefix: int, rows: Tensor) -> Tensor:
    """Return which keys the queries at some positions see: the prefix, and what is not later.

    Queries that are padding see the same keys as if they were not: real ones.

    Args:
        is_real: (batch, keys), nonzero at real tokens.
        prefix: number of leading tokens that every token sees.
        rows: (batch or 1, queries) positions that ask.

    Returns:
        (batch, 1, queries, keys).
    """
    columns = torch.arange(is_real.shape[1], device=is_real.device)
    visible = (columns < prefix) | (columns <= rows[..., None])  # (batch or 1, queries, keys)
    return (visible & is_real.bool()[:, None])[:, None]
