# SPDX-License-Identifier: Apache-2.0
"""What an answer of our side costs at the first calls, which may prepare later ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.timing import Side
from reference.measure import DeviceStopwatch

WARMUP_CALLS = 3
"""Calls before the measured ones: an engine records and allocates in the first."""


def timed_on(device: str, work: Callable[[], object]) -> Side:
    """Return a side that runs `work` in this process and waits for the device."""

    def side() -> float:
        watch = DeviceStopwatch(device)
        work()
        return watch.ms

    return side


def warm_up(side: Side) -> dict[str, Any]:
    """Call our side before it is measured; returns what the first call and all of them took."""
    times = [side() for _ in range(WARMUP_CALLS)]
    return {"first_call_ms": round(times[0], 1), "warmup_ms": round(sum(times), 1)}
