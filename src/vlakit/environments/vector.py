# SPDX-License-Identifier: Apache-2.0
"""Several environments side by side, each on its own episode."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray

from vlakit.environments.base import EnvConfig
from vlakit.environments.messages import Message
from vlakit.environments.worker import EnvironmentWorker, LocalEnvironment, close_all


class VectorEnvironment:
    """Environments of one task, asked together and answered together.

    A request goes to every slot before the first reply is awaited, so worker processes run at the
    same time. Episodes are independent: a slot never waits for another one's end.

    Args:
        config: The simulator's settings.
        num_envs: How many.
        use_processes: One worker process each; False keeps them in this process, one after another.

    Raises:
        SimulatorError: From any request: a simulator cannot start or go on.
    """

    def __init__(self, config: EnvConfig, *, num_envs: int, use_processes: bool = True) -> None:
        make = EnvironmentWorker if use_processes else LocalEnvironment
        self.slots: list[EnvironmentWorker | LocalEnvironment] = [
            make(config) for _ in range(num_envs)
        ]

    def set_task(self, task: str) -> None:
        """Put every slot on a task; comes before the first episode."""
        for slot in self.slots:
            slot.set_task(task)

    def reset(self, seeds: Mapping[int, int], *, film: Sequence[int] = ()) -> dict[int, Message]:
        """Start episodes: slot -> seed. Returns slot -> first observation (and picture)."""
        requests = {
            slot: Message({"command": "reset", "seed": seed, "film": slot in film})
            for slot, seed in seeds.items()
        }
        return self._ask(requests)

    def play(
        self, chunks: Mapping[int, NDArray[Any]], *, film: Sequence[int] = ()
    ) -> dict[int, Message]:
        """Execute one chunk of actions (steps, action_dim) per slot; see `session.py`."""
        requests = {
            slot: Message({"command": "play", "film": slot in film}, {"actions": a})
            for slot, a in chunks.items()
        }
        return self._ask(requests)

    def close(self) -> None:
        """End every worker."""
        close_all(self.slots)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, requests: Mapping[int, Message]) -> dict[int, Message]:
        for slot, request in requests.items():
            self.slots[slot].send(request)
        return {slot: self.slots[slot].receive() for slot in requests}


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
