# SPDX-License-Identifier: Apache-2.0
"""`episodes.jsonl`: one line per finished rollout, written as it finishes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vlakit.environments.base import TaskEntry
from vlakit.evaluation.results import EpisodeResult

LOG_FILE = "episodes.jsonl"


def log_line(entry: TaskEntry, instruction: str, episode: EpisodeResult) -> dict[str, Any]:
    """Return what the log holds of one rollout."""
    task = {"task_group": entry.group, "task": entry.name, "task_id": entry.task_id}
    return task | {"instruction": instruction} | episode.to_json()


class EpisodeLog:
    """Appends lines to a file; a line is in the file as a whole once `append` returns.

    Args:
        path: The file; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line."""
        os.write(self._file, json.dumps(line, allow_nan=False).encode() + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._file)
