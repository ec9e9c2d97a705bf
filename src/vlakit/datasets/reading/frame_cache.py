# SPDX-License-Identifier: Apache-2.0
"""All camera frames in memory: decoded once, in order, and shared with forked workers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlakit.errors import DatasetError

logger = logging.getLogger(__name__)

_BLOCK = 64


def available_memory() -> int | None:
    """Return the bytes this process may still take, None where the system does not say.

    The smaller of what the machine has free and what a Linux control group leaves.
    """
    limits = []
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = (line.split() for line in meminfo.read_text().splitlines())
        limits += [int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"]
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            limits.append(int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no control group limits this process
    return min(limits) if limits else None


def decode_all(
    read_images: Callable[[str, np.ndarray], Tensor], cameras: Sequence[str], num_frames: int
) -> dict[str, Tensor]:
    """Return every camera's frames, uint8 (frames, channels, height, width).

    Args:
        read_images: camera and rows (n,) -> uint8 (n, channels, height, width).
        cameras: which to decode.
        num_frames: frames of each.

    Raises:
        DatasetError: they do not fit into memory.
    """
    from rich.console import Console  # every worker imports this module, and draws nothing

    from vlakit.progress import progress_bar

    shapes = {name: tuple(read_images(name, np.array([0])).shape[1:]) for name in cameras}
    need = sum(num_frames * int(np.prod(shape)) for shape in shapes.values())
    free = available_memory()
    if free is not None and need > 0.9 * free:
        raise DatasetError(
            f"cache_frames=true needs {need / 1e9:.2f} GB for {num_frames} frames of "
            f"{len(cameras)} cameras, but only {free / 1e9:.2f} GB of memory are free. Leave "
            "--dataset.cache_frames out, or use fewer --dataset.episodes."
        )
    cached = {
        name: torch.empty((num_frames, *shape), dtype=torch.uint8) for name, shape in shapes.items()
    }
    blocks = [(name, start) for name in cameras for start in range(0, num_frames, _BLOCK)]
    total = num_frames * len(cameras)
    console = Console(stderr=True)
    with progress_bar(console, "frames", only_on_terminal=True, transient=True) as progress:
        bar = progress.add_task("decoding cameras", total=total)
        for name, start in blocks:
            rows = np.arange(start, min(start + _BLOCK, num_frames))
            cached[name][start : start + len(rows)] = read_images(name, rows)
            progress.advance(bar, len(rows))
    return cached
