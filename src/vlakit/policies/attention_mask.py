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


def causal_padding_mask(is_real: Tensor, num_queries: int | None = None) -> Tensor:
    """Return the causal mask of the last `num_queries` positions over all positions.

    A padded query sees itself, and only itself: a row without any key would turn into NaN and
    spread through the values of the next layer.

    Args:
        is_real: (batch, keys), nonzero at real tokens.
        num_queries: how many of the last positions ask; None for all.

    Returns:
        (batch, 1, queries, keys).
    """
    keys = is_real.shape[1]
    queries = keys if num_queries is None else num_queries
    columns = torch.arange(keys, device=is_real.device)
    rows = columns[keys - queries :, None]
    visible = (columns <= rows) & is_real.bool()[:, None]  # (batch, queries, keys)
    return (visible | (columns == rows))[:, None]
