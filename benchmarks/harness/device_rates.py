# SPDX-License-Identifier: Apache-2.0
"""What a device can do at best, measured: bytes moved and multiplications per second."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from reference.measure import synchronize

_COPIED_BYTES = {"cuda": 1 << 31, "cpu": 1 << 28}
_SIDE = {"cuda": 8192, "cpu": 2048}
_BEST_OF = 5


def copy_bandwidth(device: str) -> float:
    """Return the bytes per second of a copy, read and written bytes both counted."""
    source = torch.zeros(_COPIED_BYTES[device], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / _fastest(lambda: target.copy_(source), device)


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Return the FLOPs per second of a large square matrix product."""
    side = _SIDE[device]
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / _fastest(lambda: left @ right, device)


def _fastest(work: Callable[[], object], device: str) -> float:
    """Return the seconds of the fastest of a few runs."""
    seconds = []
    for _ in range(1 + _BEST_OF):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
