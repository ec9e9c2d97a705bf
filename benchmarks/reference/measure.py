# SPDX-License-Identifier: Apache-2.0
"""Clock, memory and precision of a process on a CPU or a GPU; both sides run this file."""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from pathlib import Path

import torch

_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def set_precision(device: str) -> None:
    """Take the matrix precision of both trainers' command lines: TF32 on a GPU, none on a CPU.

    LeRobot's sets `allow_tf32`, ours `set_float32_matmul_precision("high")`: the same switch.
    """
    torch.set_float32_matmul_precision("high" if device == "cuda" else "highest")
    torch.backends.cudnn.allow_tf32 = True


def synchronize(device: str) -> None:
    """Wait until a GPU has done what it was asked."""
    if device == "cuda":
        torch.cuda.synchronize()


class DeviceStopwatch:
    """Milliseconds since it was made, the GPU's work included."""

    def __init__(self, device: str) -> None:
        synchronize(device)
        self._device, self._start = device, time.perf_counter()

    @property
    def ms(self) -> float:
        synchronize(self._device)
        return 1e3 * (time.perf_counter() - self._start)


class PeakMemory:
    """The most memory that a process took since it was made, in MB.

    On a GPU what torch allocated; on a CPU what was resident (Linux only, else None).
    """

    def __init__(self, device: str) -> None:
        self._device = device
        gc.collect()
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        elif _CLEAR_REFS.exists():
            _CLEAR_REFS.write_text(_RESET_PEAK)

    @property
    def mb(self) -> float | None:
        if self._device == "cuda":
            return torch.cuda.max_memory_allocated() / 1e6
        return _status_mb("VmHWM")


def used_mb(device: str) -> float | None:
    """Return the memory in use now, in MB; see `PeakMemory`."""
    gc.collect()
    if device == "cuda":
        return torch.cuda.memory_allocated() / 1e6
    if sys.platform == "linux":
        # What earlier work left in the heap would hide what a step takes.
        ctypes.CDLL(None).malloc_trim(0)
    return _status_mb("VmRSS")


def _status_mb(name: str) -> float | None:
    if not _STATUS.exists():
        return None
    lines = [line.split() for line in _STATUS.read_text().splitlines()]
    return next(float(line[1]) * 1024 / 1e6 for line in lines if line[0] == f"{name}:")


def optimizer_mb(optimizer: torch.optim.Optimizer) -> float:
    """Return the size of an optimiser's state in MB."""
    states = (value for state in optimizer.state.values() for value in state.values())
    tensors = [value for value in states if isinstance(value, torch.Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6
