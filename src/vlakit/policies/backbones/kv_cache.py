# SPDX-License-Identifier: Apache-2.0
"""Keys and values of a fixed number of positions, written in place."""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Per layer, keys and values of `length` positions, allocated once.

    The prefix is written once. What follows either overwrites its own slots, as the denoised
    suffix of flow matching does, or moves `start` on, token by token. Memory never grows.
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
    ) -> None:
        shape = (num_layers, 2, batch_size, num_heads, length, head_dim)
        self._slots = torch.zeros(shape, dtype=dtype, device=device)
        self.start = 0
        """First slot that the next write of every layer fills."""

    def write(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values and return all up to the last one stored.

        Args:
            layer: index of the layer.
            k: (batch, kv_heads, positions, head_dim), rotated.
            v: (batch, kv_heads, positions, head_dim).

        Returns:
            keys and values, each (batch, kv_heads, start + positions, head_dim).
        """
        keys, values = self._slots[layer]
        end = self.start + k.shape[2]
        keys[:, :, self.start : end] = k
        values[:, :, self.start : end] = v
        return keys[:, :, :end], values[:, :, :end]
