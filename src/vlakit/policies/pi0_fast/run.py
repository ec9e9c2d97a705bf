# SPDX-License-Identifier: Apache-2.0
"""A batch of chunks that are being spelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from vlakit.policies.pi0_fast.model import Decoding


@dataclass
class Run:
    """Rows that get one id after another; every tensor is changed in place."""

    state: Decoding
    positions: Tensor
    """(batch,) of the automaton."""
    has_ended: Tensor
    """(batch,) bool"""
    is_broken: Tensor
    """(batch,) bool, True where logits were not finite."""
    columns: Tensor
    """(batch, max_steps) columns of the head that were chosen; -1 after the end."""
    chosen: Tensor
    """(batch,) the last of them."""
    step: Tensor
    """(batch,) how many were chosen."""
    passes: Tensor
    """(batch,) forward passes since the prefill."""
    noise: Tensor | None
    """(batch, max_steps or more) uniforms, for a temperature above 0."""
    previous: Tensor | None
    """(batch, max_steps) columns of each row's last chunk, -1 after its end; None to draft none."""

    @classmethod
    def start(
        cls,
        state: Decoding,
        positions: Tensor,
        max_steps: int,
        noise: Tensor | None,
        previous: Tensor | None,
    ) -> Self:
        """Return a batch without any id."""
        none = torch.zeros_like(positions)
        return cls(
            state=state,
            positions=positions,
            has_ended=torch.zeros_like(positions, dtype=torch.bool),
            is_broken=torch.zeros_like(positions, dtype=torch.bool),
            columns=torch.full((len(positions), max_steps), -1, device=positions.device),
            chosen=none,
            step=none.clone(),
            passes=none.clone(),
            noise=noise,
            previous=previous,
        )

    def uniforms(self) -> Tensor | None:
        """Return each row's uniform for its next id, (batch,)."""
        if self.noise is None:
            return None
        return self.noise.gather(1, self.step.clamp(max=self.noise.shape[1] - 1)[:, None])[:, 0]

    def take(self, chosen: Tensor, positions: Tensor, where: Tensor) -> None:
        """Add an id to some rows.

        Args:
            chosen: (batch,) columns.
            positions: (batch,) where the ids lead.
            where: (batch,) bool, rows that take theirs.
        """
        place = self.step.clamp(max=self.columns.shape[1] - 1)[:, None]
        kept = torch.where(where[:, None], chosen[:, None], self.columns.gather(1, place))
        self.columns.scatter_(1, place, kept)
        self.positions.copy_(torch.where(where, positions, self.positions))
        self.chosen.copy_(torch.where(where, chosen, self.chosen))
        self.step += where
