# SPDX-License-Identifier: Apache-2.0
"""A batch as it travels from a worker: few messages instead of one per tensor.

Each tensor that a worker sends costs a file descriptor handed over by a thread, about a
millisecond. Small tensors therefore travel inside the message, large ones side by side in one block
of shared memory, in which the tensors of the unpacked batch lie.
"""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

Place = tuple[int, torch.dtype, tuple[int, ...]]
"""Offset in bytes, dtype and shape of a tensor in the block."""

SMALL = 1 << 16
"""Bytes up to which a tensor travels in the message."""
_ALIGNMENT = 64


class PackedBatch:
    """A batch in one block."""

    def __init__(self, batch: dict[str, Any]) -> None:
        """Pack a batch: tensors on the CPU of any dtype, and anything else that can be pickled."""
        self._values: dict[str, Any] = {}
        self._block: Tensor | None = None
        large: dict[str, Tensor] = {}
        end = 0
        for name, value in batch.items():
            if not isinstance(value, Tensor):
                self._values[name] = value
            elif value.nbytes <= SMALL and value.dtype != torch.bfloat16:
                self._values[name] = _InMessage(value)
            else:
                self._values[name] = (end, value.dtype, tuple(value.shape))
                large[name] = value
                end = -(-(end + value.nbytes) // _ALIGNMENT) * _ALIGNMENT
        self._large = tuple(large)
        if large:
            # Made shared at once: the tensors are copied once, into it.
            self._block = torch.tensor([], dtype=torch.uint8).set_(
                torch.UntypedStorage._new_shared(end)
            )
            for name, value in large.items():
                self._tensor(name).copy_(value)

    def _tensor(self, name: str) -> Tensor:
        assert self._block is not None
        offset, dtype, shape = self._values[name]
        size = math.prod(shape) * dtype.itemsize
        return self._block[offset : offset + size].view(dtype).view(shape)

    def pin_memory(self, device: Any = None) -> Self:
        """Move the block to pinned memory; the loader calls this where a GPU waits."""
        if self._block is not None:
            self._block = self._block.pin_memory()
        return self

    def unpacked(self) -> dict[str, Any]:
        """Return the batch, its entries in their order."""
        return {
            name: self._tensor(name)
            if name in self._large
            else value.tensor()
            if isinstance(value, _InMessage)
            else value
            for name, value in self._values.items()
        }


class _InMessage:
    """A small tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self._array: np.ndarray = tensor.detach().numpy()

    def tensor(self) -> Tensor:
        return torch.from_numpy(self._array)
