# SPDX-License-Identifier: Apache-2.0
"""Run work that may stop for ever, and begin it again when it does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from typing import TypeVar

from vlakit.errors import DatasetError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

SILENCE_LIMIT_S = 60.0
"""Longer than any encoder takes for a packet, however slow its preset."""

ATTEMPTS = 3


class SignsOfLife:
    """What work tells about itself while it runs."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._is_abandoned = False

    def moved(self) -> None:
        """Say that a step is done.

        Raises:
            AbandonedError: nobody waits any more: stop, and touch nothing that others read.
        """
        if self._is_abandoned:
            raise AbandonedError
        self._last = time.monotonic()

    def silence_s(self) -> float:
        """Return the seconds since the last step."""
        return time.monotonic() - self._last

    def abandon(self) -> None:
        """End the work at its next step, should it ever come to one."""
        self._is_abandoned = True


class AbandonedError(Exception):
    """Work that moved again after it had been given up; nobody sees this."""


def run_watched(work: Callable[[SignsOfLife], Result], name: str, advice: str) -> Result:
    """Return what `work` returns; start it again if it shows no sign of life for too long.

    Each attempt has a thread of its own, which is left behind asleep if it stops for good.

    Args:
        work: called once per attempt; it tells of its steps.
        name: what it does, for messages.
        advice: what to do if every attempt stops.

    Raises:
        DatasetError: every attempt stopped.
    """
    for attempt in range(1, ATTEMPTS + 1):
        signs = SignsOfLife()
        # Its threads are daemons: a stuck one does not keep the program from ending.
        with ThreadPool(1) as pool:
            result = pool.apply_async(work, (signs,))
            try:
                while not result.ready() and signs.silence_s() < SILENCE_LIMIT_S:
                    result.wait(SILENCE_LIMIT_S - signs.silence_s())
            finally:
                signs.abandon()  # done, stuck, or interrupted by the user
            if result.ready():
                pool.close()
                pool.join()  # a process that forks next is single-threaded again
                return result.get()
        state = f"stood still for {SILENCE_LIMIT_S:.0f} s (attempt {attempt} of {ATTEMPTS})"
        logger.warning("%s %s.", name, state)
    raise DatasetError(f"{name} stood still {ATTEMPTS} times; {advice}.")
