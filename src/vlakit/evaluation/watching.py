# SPDX-License-Identifier: Apache-2.0
"""What a running evaluation shows of itself, and what it sees of other processes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress, TaskID

from vlakit.environments.base import TaskEntry
from vlakit.evaluation.episode_log import LogReader
from vlakit.evaluation.schedule import Schedule

COUNTED = "rollouts, {task.fields[successes]} succeeded{task.fields[errors]}"
MOST_BARS = 12
"""More tasks than this share one bar."""
OTHERS_EVERY_S = 2.0
"""How often the logs of other processes are looked at."""


class OtherProcesses:
    """What other processes have logged so far, where their folder can be seen.

    It only saves time (a decided task ends for all) and moves the bars; the result is made from
    what everybody hands in at the end.
    """

    def __init__(self, schedule: Schedule, logs: Sequence[Path]) -> None:
        self._schedule, self._reader = schedule, LogReader(logs)
        self._has_others = bool(logs)
        self._looked_at = time.monotonic()

    def look(self) -> None:
        """Take in what is new, every few seconds."""
        if not self._has_others or time.monotonic() - self._looked_at < OTHERS_EVERY_S:
            return
        self._looked_at = time.monotonic()
        for entry in self._reader.new_entries():
            self._schedule.add(entry.entry, entry.episode.seed, entry.episode)


class Bars:
    """One bar per task, or one for all of many."""

    def __init__(self, progress: Progress, schedule: Schedule) -> None:
        self._progress, self._schedule = progress, schedule
        self._bars: dict[str, TaskID] = {}

    def show(self, entries: Sequence[TaskEntry]) -> None:
        """Bring the bars up to date."""
        if len(entries) > MOST_BARS:
            self._update("all tasks", entries)
            return
        for entry in entries:
            self._update(entry.name, [entry])

    def _update(self, name: str, entries: Sequence[TaskEntry]) -> None:
        outcomes = [outcome for e in entries for outcome in self._schedule.outcomes(e)]
        num_errors = sum(not outcome.is_finished for outcome in outcomes)
        shown = {
            "completed": len(outcomes),
            "total": sum(self._schedule.num_wanted(entry) for entry in entries),
            "successes": sum(outcome.success for outcome in outcomes),
            "errors": f", {num_errors} errors" if num_errors else "",
        }
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, **shown)
        self._progress.update(self._bars[name], **shown)
