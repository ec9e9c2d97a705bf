# SPDX-License-Identifier: Apache-2.0
"""A training batch as one row without padding: its samples stand one after another.

    unpacked   prompt A ......... a a a a e    packed   prompt B b b b b prompt A ......... a a a a
               prompt B b b b b e - - - - -

A sample ends with its last visible action: padding, hidden actions and what follows the actions
take no place. Each sample keeps its own positions and looks at itself only, so loss and gradients
are those of the unpacked batch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from vlakit.policies.backbones.segments import Segments


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a batch stand in its packed row."""

    tokens: Tensor
    """(packed tokens,) which of the batch * length tokens stands there."""
    segments: Segments
    """The samples, shortest first; their visible actions ask."""
    columns: Tensor
    """(1, visible actions), where these stand in the row."""
    is_visible: Tensor
    """(batch, horizon) boolean, False where an action takes no place."""
    actions: Tensor
    """(visible actions,) which of the batch * horizon actions each is."""

    def to(self, device: torch.device) -> Packing:
        """Return the same on a device: a plan is best made on the host, which waits for nothing."""
        names = ("tokens", "columns", "is_visible", "actions")
        return dataclasses.replace(self, **{name: vars(self)[name].to(device) for name in names})

    def pack(self, embeddings: Tensor) -> Tensor:
        """Return (1, packed tokens, width) of (batch, length, width)."""
        return embeddings.flatten(0, 1).index_select(0, self.tokens)[None]

    def pack_positions(self, positions: Tensor) -> Tensor:
        """Return (3, 1, packed tokens) of (3, batch, length)."""
        return positions.flatten(1).index_select(1, self.tokens)[:, None]

    def unpack_actions(self, hidden: Tensor) -> Tensor:
        """Return (batch, horizon, width) of (1, visible actions, width); hidden ones are 0."""
        batch, horizon = self.is_visible.shape
        rows = hidden.new_zeros(batch * horizon, hidden.shape[-1])
        return rows.index_copy(0, self.actions, hidden[0]).unflatten(0, (batch, horizon))


def plan_packing(is_real: Tensor, columns: Tensor) -> Packing:
    """Work out the packed row of a batch.

    Args:
        is_real: (batch, length), nonzero at tokens that may be looked at.
        columns: (batch, horizon), where the action tokens are, in order.
    """
    real, index = is_real.bool(), torch.arange(is_real.shape[1], device=is_real.device)
    is_kept = real & (index <= columns[:, -1:])
    is_visible = real.gather(1, columns)
    lengths, counts = is_kept.sum(1).tolist(), is_visible.sum(1).tolist()
    # Samples of one length stand together, for their attention is one call.
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], counts[row]))
    is_action = torch.zeros_like(is_kept).scatter(1, columns, is_visible)
    return Packing(
        tokens=_in_order(is_kept, order),
        segments=Segments(
            keys=tuple(lengths[row] for row in order), queries=tuple(counts[row] for row in order)
        ),
        columns=is_action[order][is_kept[order]].nonzero().T,
        is_visible=is_visible,
        actions=_in_order(is_visible, order),
    )


def _in_order(chosen: Tensor, order: list[int]) -> Tensor:
    """Return the flat index of every True entry of (rows, n), row after row in the given order."""
    index = torch.arange(chosen.numel(), device=chosen.device).view_as(chosen)
    return index[order][chosen[order]]
