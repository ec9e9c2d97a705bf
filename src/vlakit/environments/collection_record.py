# SPDX-License-Identifier: Apache-2.0
"""How a dataset was recorded: simulator, noise, and the seed of every attempt.

`vlakit collect` leaves it beside the dataset's own metadata, one JSON object a line: the settings
first, then every attempt, kept or failed. LeRobot does not look at it. With it, an episode can be
started again exactly as it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlakit.errors import DatasetError

RECORD_PATH = "meta/vlakit_collection.jsonl"


@dataclass(frozen=True)
class RecordedStart:
    """Where an episode of the dataset began."""

    task: str
    seed: int


@dataclass(frozen=True)
class CollectionRecord:
    """What is known of how a dataset was recorded; of foreign ones, nothing."""

    env: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the simulator with their `type`, as `--env.*` takes them."""
    noise: float = 0.0
    starts: Mapping[int, RecordedStart] = field(default_factory=dict)
    """Episode of the dataset -> its start."""


def write_record(
    root: Path, settings: Mapping[str, Any], attempts: Sequence[Mapping[str, Any]]
) -> None:
    """Write the record of a dataset.

    Args:
        root: The dataset's folder.
        settings: Of `vlakit collect`, as JSON, `env` with its `type`.
        attempts: `task`, `seed`, `success` and `episode_index` (None after a failure).
    """
    lines = [{"settings": settings}, *attempts]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (root / RECORD_PATH).write_text(text, encoding="utf-8")


def read_record(root: Path) -> CollectionRecord:
    """Return the record of a dataset; an empty one when it has none.

    Raises:
        DatasetError: The file is damaged.
    """
    path = root / RECORD_PATH
    if not path.is_file():
        return CollectionRecord()
    try:
        first, *attempts = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        return CollectionRecord(
            env=first["settings"]["env"],
            noise=float(first["settings"]["noise"]),
            starts={
                attempt["episode_index"]: RecordedStart(attempt["task"], attempt["seed"])
                for attempt in attempts
                if attempt["success"]
            },
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path} is damaged ({error}), expected what `vlakit collect` wrote. Fetch the dataset "
            "again, or remove that file: its episodes then count as recorded elsewhere."
        ) from error
