# SPDX-License-Identifier: Apache-2.0
"""Keys and values of a fixed number of positions, written in place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LayerCache:
    """Slots of one layer, and which of them its next write fills."""

    keys: Tensor
    """(batch, kv_heads, length, head_dim)"""
    values: Tensor
    start: int
    """First slot to fill, where `slots` is None."""
    slots: Tensor | None
    """(batch, positions) int64 slots to fill, known to the device only."""
    uses_joined: bool
    """Whether the layer may use its joined weights, see `layers.join_maps`."""

    def write(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values and return what the queries may look at.

        Args:
            k: (batch, kv_heads, positions, head_dim), rotated.
            v: (batch, kv_heads, positions, head_dim).

        Returns:
            keys and values, each (batch, kv_heads, n, head_dim): all up to the last one stored, or,
            where the device alone knows which that is, all slots.
        """
        if self.slots is not None:
            index = self.slots[:, None, :, None].expand_as(k)
            self.keys.scatter_(2, index, k.to(self.keys.dtype))
            self.values.scatter_(2, index, v.to(self.values.dtype))
            return self.keys, self.values
        end = self.start + k.shape[2]
        self.keys[:, :, self.start : end] = k
        self.values[:, :, self.start : end] = v
        return self.keys[:, :, :end], self.values[:, :, :end]


class KVCache:
    """Per layer, keys and values of `length` positions, allocated once.

    The prefix is written once. What follows either overwrites its own slots, as the denoised
    suffix of flow matching does, or moves on, token by token: on the host by `start`, or on the
    device by `slots`, which a recorded graph needs, as it repeats the host's numbers for ever.
    Memory never grows.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        batch_size: int,
        num_heads: int,
        length: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
        uses_joined: bool = False,
    ) -> None:
        shape = (num_layers, 2, batch_size, num_heads, length, head_dim)
        self._slots = torch.zeros(shape, dtype=dtype, device=device)
        self.length = length
        self.start = 0
        """First slot that the next write of every layer fills."""
        self.slots: Tensor | None = None
        """(batch, positions) slots that it fills instead; queries then see no other limit."""
        self._uses_joined = uses_joined

    def layer(self, index: int) -> LayerCache:
        """Return the slots of a layer, for its next write."""
        keys, values = self._slots[index]
        return LayerCache(keys, values, self.start, self.slots, self._uses_joined)
