# SPDX-License-Identifier: Apache-2.0
"""Several environments side by side, each on its own task and episode."""

from __future__ import annotations

import os
import time
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray

from vlakit.environments.base import EnvConfig
from vlakit.environments.local import LocalEnvironment
from vlakit.environments.messages import Message
from vlakit.environments.worker_process import (
    TIMEOUT_S,
    EnvironmentWorker,
    WorkerError,
    close_all,
)

Slot = EnvironmentWorker | LocalEnvironment


class VectorEnvironment:
    """Environments that are asked one by one and answer when they are ready.

    A request does not wait, so worker processes run at the same time, and `wait` returns whoever
    has answered: no slot ever waits for another one.

    Args:
        config: The simulator's settings.
        num_envs: How many.
        use_processes: One worker process each; False keeps them in this process, one after another.
        timeout_s: How long a worker may take to answer.

    Raises:
        ConfigError: `--env.python` cannot be run.
        SimulatorError: From `wait`: a simulator says that it cannot start or go on.
    """

    def __init__(
        self,
        config: EnvConfig,
        *,
        num_envs: int,
        use_processes: bool = True,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._config, self._use_processes, self._timeout_s = config, use_processes, timeout_s
        self.slots: list[Slot] = []
        self._busy: set[int] = set()
        """Slots that owe a reply."""
        for _ in range(num_envs):
            self.slots.append(self._make())

    def reset(self, slot: int, task: str, seed: int, *, film: bool = False) -> None:
        """Start an episode; another task than before makes the slot build its environment first."""
        if self.slots[slot].task != task:
            self.slots[slot].set_task(task)
        self._ask(slot, Message({"command": "reset", "seed": seed, "film": film}))

    def play(self, slot: int, actions: NDArray[Any], *, film: bool = False) -> None:
        """Execute one chunk of actions (steps, action_dim); see `session.py`."""
        self._ask(slot, Message({"command": "play", "film": film}, {"actions": actions}))

    def wait(self, timeout_s: float | None = None) -> dict[int, Message | WorkerError]:
        """Return the replies that are there, or the first to come; nothing after the timeout.

        Args:
            timeout_s: How long to wait at most; None waits for a reply or a worker's end.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while self._busy:
            replies = {slot: self._receive(slot) for slot in self._readable(until)}
            answered = {slot: reply for slot, reply in replies.items() if reply is not None}
            self._busy -= answered.keys()
            if answered or (until is not None and time.monotonic() >= until):
                return answered
        return {}

    def restart(self, slot: int) -> None:
        """Put a new environment in the place of one that has ended."""
        self.slots[slot].close()
        self.slots[slot] = self._make()

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

    def _make(self) -> Slot:
        if self._use_processes:
            return EnvironmentWorker(self._config, timeout_s=self._timeout_s)
        return LocalEnvironment(self._config)

    def _ask(self, slot: int, request: Message) -> None:
        self.slots[slot].send(request)
        self._busy.add(slot)

    def _readable(self, until: float | None) -> list[int]:
        """Return the busy slots that have something to say, or whose time is up."""
        workers: dict[int, EnvironmentWorker] = {}
        for index in self._busy:
            slot = self.slots[index]
            if isinstance(slot, LocalEnvironment):
                return sorted(self._busy)
            workers[index] = slot
        deadline = min(worker.deadline for worker in workers.values())
        if until is not None:
            deadline = min(deadline, until)
        descriptors = [worker.fileno() for worker in workers.values()]
        ready = wait(descriptors, max(0.0, deadline - time.monotonic()))
        now = time.monotonic()
        return sorted(
            index
            for index, worker in workers.items()
            if worker.fileno() in ready or worker.deadline <= now
        )

    def _receive(self, slot: int) -> Message | WorkerError | None:
        worker = self.slots[slot]
        try:
            if isinstance(worker, EnvironmentWorker):
                return worker.receive_part()
            return worker.receive()
        except WorkerError as error:
            return error


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
