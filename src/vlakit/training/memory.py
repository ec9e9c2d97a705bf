# SPDX-License-Identifier: Apache-2.0
"""How much memory a run has resident: its main process and the processes that it started."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

_PROC = Path("/proc")
_MB = 1e6


def resident_memory() -> dict[str, float]:
    """Return resident memory in MB.

    Returns:
        `memory_mb` of the main process; where child processes run, `workers_memory_mb`, the sum of
        theirs, and `workers_own_memory_mb`, what of it no other process shares (program code,
        shared columns and batches on their way are shared). Where there is no /proc, `memory_mb` is
        the largest so far, and nothing is known of the children.
    """
    own = _status(os.getpid())
    if own is None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"memory_mb": (peak if sys.platform == "darwin" else peak * 1024) / _MB}
    children = [status for child in _children() if (status := _status(child)) is not None]
    memory = {"memory_mb": own["VmRSS"] / _MB}
    if children:
        memory["workers_memory_mb"] = sum(status["VmRSS"] for status in children) / _MB
        memory["workers_own_memory_mb"] = sum(status["RssAnon"] for status in children) / _MB
    return memory


def memory_line(memory: dict[str, float]) -> str:
    """Return what `resident_memory` gave as a line to read."""
    line = f"memory: {memory['memory_mb']:,.0f} MB resident"
    if "workers_memory_mb" in memory:
        line += (
            f", data workers {memory['workers_memory_mb']:,.0f} MB in all "
            f"({memory['workers_own_memory_mb']:,.0f} MB not shared)"
        )
    return line


def _status(process: int) -> dict[str, int] | None:
    """Return the bytes of a process by kind; None for one that is gone, or without /proc."""
    try:
        lines = (_PROC / str(process) / "status").read_text().splitlines()
    except OSError:
        return None
    found = {"VmRSS": 0, "RssAnon": 0}
    for line in lines:
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) * 1024
    return found


def _children() -> list[int]:
    """Return the processes that this one started, whichever of its threads did it."""
    children = []
    for thread in (_PROC / str(os.getpid()) / "task").iterdir():
        try:
            children += [int(child) for child in (thread / "children").read_text().split()]
        except OSError:
            continue  # the thread ended meanwhile, or the kernel does not tell
    return children
