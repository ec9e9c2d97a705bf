# SPDX-License-Identifier: Apache-2.0
"""Which rollout comes next: (task, seed) pairs, handed to whoever is free.

A slot stays on its task while that has rollouts left, because another task means building another
world; then it helps where most is left to do. When a task is decided depends only on its outcomes
in the order of their seeds, never on which of them finished first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from vlakit.environments.base import TaskEntry
from vlakit.evaluation.results import EpisodeResult
from vlakit.evaluation.success_rate import wilson_interval


class Rollout(NamedTuple):
    """One episode to do."""

    entry: TaskEntry
    index: int
    """Its place among the rollouts of the task, from 0."""
    seed: int


class Share(NamedTuple):
    """The part of the rollouts that one of several processes does."""

    rank: int = 0
    world_size: int = 1


@dataclass
class _Task:
    """Where the rollouts of one task stand."""

    entry: TaskEntry
    waiting: deque[int]
    results: dict[int, EpisodeResult] = field(default_factory=dict)
    num_running: int = 0
    decided_after: int | None = None
    """How many rollouts decide the rate closely enough; None as long as they do not."""
    _num_seen: int = 0
    _num_finished: int = 0
    _num_successes: int = 0

    def add(self, index: int, result: EpisodeResult, stop_width: float | None) -> None:
        """Take in an outcome; looks on from where the row without gaps ended."""
        self.results[index] = result
        while self.decided_after is None and self._num_seen in self.results:
            episode = self.results[self._num_seen]
            self._num_seen += 1
            self._num_finished += episode.is_finished
            self._num_successes += episode.is_finished and episode.success
            low, high = wilson_interval(self._num_successes, self._num_finished)
            if stop_width is not None and high - low < stop_width:
                self.decided_after = self._num_seen
                self.waiting.clear()


class Schedule:
    """The rollouts of an evaluation.

    Args:
        entries: The tasks.
        first_seed: Each task's seeds count on from it.
        n_episodes: Rollouts per task.
        stop_width: A task is decided once its 95 % interval is narrower than this fraction.
        done: Rollouts that were done before: (task, seed) -> outcome.
        share: The part that is handed out here; outcomes of others come with `add`.
        seeds: Task name -> its seeds, each one once, in the place of those that count on.
    """

    def __init__(
        self,
        entries: Sequence[TaskEntry],
        *,
        first_seed: int,
        n_episodes: int,
        stop_width: float | None = None,
        done: Mapping[tuple[TaskEntry, int], EpisodeResult] | None = None,
        share: Share | None = None,
        seeds: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self._stop_width = stop_width
        counted = range(first_seed, first_seed + n_episodes)
        self._seeds = {entry: counted if seeds is None else seeds[entry.name] for entry in entries}
        done, share = done or {}, share or Share()
        self._tasks = {entry: _Task(entry, deque()) for entry in entries}
        missing = [
            (index, entry)
            for index in range(max(map(len, self._seeds.values())))
            for entry, of_task in self._seeds.items()
            if index < len(of_task) and (entry, of_task[index]) not in done
        ]
        for index, entry in missing[share.rank :: share.world_size]:
            self._tasks[entry].waiting.append(index)
        for (entry, seed), result in done.items():
            self.add(entry, seed, result)

    @property
    def num_waiting(self) -> int:
        """Rollouts that nobody has taken yet."""
        return sum(len(task.waiting) for task in self._tasks.values())

    def take(self, task_name: str) -> Rollout | None:
        """Return the next rollout for a slot that is on a task, preferably of that one."""
        tasks = [task for task in self._tasks.values() if task.waiting]
        if not tasks:
            return None
        same = (task for task in tasks if task.entry.name == task_name)
        task = next(same, None) or max(tasks, key=lambda t: len(t.waiting) / (1 + t.num_running))
        task.num_running += 1
        index = task.waiting.popleft()
        return Rollout(task.entry, index, self._seeds[task.entry][index])

    def finish(self, rollout: Rollout, result: EpisodeResult) -> None:
        """Take in the outcome of a rollout that was taken."""
        self._tasks[rollout.entry].num_running -= 1
        self.add(rollout.entry, rollout.seed, result)

    def add(self, entry: TaskEntry, seed: int, result: EpisodeResult) -> None:
        """Take in an outcome from elsewhere; one that nobody asked for is left out."""
        if seed in self._seeds.get(entry, ()):
            index = self._seeds[entry].index(seed)
            self._tasks[entry].add(index, result, self._stop_width)

    def drop(self, rollout: Rollout) -> None:
        """Give up a rollout that was taken and is not needed any more."""
        self._tasks[rollout.entry].num_running -= 1

    def is_needed(self, rollout: Rollout) -> bool:
        """Return False once the task is decided without this rollout."""
        decided_after = self._tasks[rollout.entry].decided_after
        return decided_after is None or rollout.index < decided_after

    def num_wanted(self, entry: TaskEntry) -> int:
        """Return how many rollouts of a task count, as far as is known."""
        decided_after = self._tasks[entry].decided_after
        return len(self._seeds[entry]) if decided_after is None else decided_after

    def outcomes(self, entry: TaskEntry) -> list[EpisodeResult]:
        """Return what a task gave so far, in the order of seeds, without what does not count."""
        results = self._tasks[entry].results
        return [results[i] for i in range(self.num_wanted(entry)) if i in results]
