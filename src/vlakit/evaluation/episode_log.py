# SPDX-License-Identifier: Apache-2.0
"""`episodes.jsonl`: one line per rollout, written as it ends, read to go on after a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from vlakit.environments.base import TaskEntry
from vlakit.errors import ConfigError
from vlakit.evaluation.results import EpisodeResult, TaskResult
from vlakit.files import written_whole


class LogEntry(NamedTuple):
    """One rollout, as the log has it."""

    entry: TaskEntry
    instruction: str
    episode: EpisodeResult

    def to_json(self) -> dict[str, Any]:
        """Return the content of a line."""
        entry = self.entry
        task = {"task_group": entry.group, "task": entry.name, "task_id": entry.task_id}
        return task | {"instruction": self.instruction} | self.episode.to_json()

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote."""
        entry = TaskEntry(line["task_group"], line["task_id"], line["task"])
        return cls(entry, line["instruction"], EpisodeResult.from_json(line))


class EpisodeLog:
    """Appends lines to a file; a line is in the file as a whole once `append` returns.

    Args:
        path: The file; its folder is made. Half a line at its end, of a process that was killed,
            is cut off.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(0)
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def append(self, entry: LogEntry) -> None:
        """Write one line."""
        os.write(self._file, _line(entry).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._file)


class LogReader:
    """Reads logs that others write to, each line once.

    Args:
        paths: Files that need not exist yet.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._read_to = dict.fromkeys(paths, 0)

    def new_entries(self) -> Iterator[LogEntry]:
        """Yield what was written since the last call; half a line waits for its end.

        Raises:
            ConfigError: A line is no rollout.
        """
        for path, start in self._read_to.items():
            if not path.is_file():
                continue
            with path.open("rb") as file:
                file.seek(start)
                content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            self._read_to[path] = start + len(whole)
            for line in whole.splitlines():
                yield _parsed(path, line)


def write_log(path: Path, tasks: Iterable[TaskResult]) -> None:
    """Write the log of all rollouts in the order of tasks and seeds, whole or not at all."""
    with written_whole(path) as part, part.open("w", encoding="utf-8") as file:
        for task in tasks:
            for episode in task.episodes:
                file.write(_line(LogEntry(task.entry, task.instruction, episode)))


def _line(entry: LogEntry) -> str:
    return json.dumps(entry.to_json(), allow_nan=False) + "\n"


def _parsed(path: Path, line: bytes) -> LogEntry:
    try:
        return LogEntry.from_json(json.loads(line))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} holds a line that is no rollout ({error!r}): expected what `vlakit eval` "
            "wrote. Remove that line, or give another --output_dir."
        ) from error
