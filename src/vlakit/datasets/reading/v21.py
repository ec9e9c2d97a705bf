# SPDX-License-Identifier: Apache-2.0
"""Version 2.1 of the format, read only: one file per episode, tables as JSON lines.

Its statistics have no quantiles; `reader.py` computes them from the data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.datasets.feature_stats import Stats, aggregate_reference, parse_stats
from vlakit.datasets.layout import INFO_PATH
from vlakit.datasets.metadata import EpisodeTable, VideoSpans
from vlakit.errors import DatasetError

EPISODES_PATH = "meta/episodes.jsonl"
TASKS_PATH = "meta/tasks.jsonl"
STATS_PATH = "meta/episodes_stats.jsonl"


def read_stats(root: Path) -> Stats:
    """Return the statistics folded from those of the episodes; they have no quantiles.

    Raises:
        DatasetError: the file is missing or damaged.
    """
    rows = _read_lines(root / STATS_PATH, ("episode_index", "stats"))
    return aggregate_reference([parse_stats(row["stats"], root / STATS_PATH) for row in rows])


def read_episodes(root: Path, info: Mapping[str, Any]) -> EpisodeTable:
    """Read `meta/episodes.jsonl`.

    Raises:
        DatasetError: the file is missing or damaged, or the episodes have gaps.
    """
    for key in ("data_path", "chunks_size"):
        if not info.get(key):
            raise DatasetError(
                f"{root / INFO_PATH} lacks the key {key!r}, which version v2.1 has; fetch it again."
            )
    rows = _read_lines(root / EPISODES_PATH, ("episode_index", "tasks", "length"))
    rows.sort(key=lambda row: row["episode_index"])
    if [row["episode_index"] for row in rows] != list(range(len(rows))):
        raise DatasetError(
            f"{root / EPISODES_PATH}: episode_index must count from 0 without gaps. Fetch it again."
        )
    return EpisodeTable(
        lengths=np.asarray([row["length"] for row in rows], dtype=np.int64),
        tasks=[list(row["tasks"]) for row in rows],
        data_paths=_episode_paths(root, info, "data_path", len(rows)),
        videos={
            key: VideoSpans(
                _episode_paths(root, info, "video_path", len(rows), key), np.zeros(len(rows))
            )
            for key, entry in info["features"].items()
            if entry["dtype"] == "video"
        },
    )


def read_tasks(root: Path) -> list[str]:
    """Return the instructions of `meta/tasks.jsonl`, by task index.

    Raises:
        DatasetError: the file is missing or damaged, or the tasks have gaps.
    """
    path = root / TASKS_PATH
    rows = _read_lines(path, ("task_index", "task"))
    rows.sort(key=lambda row: row["task_index"])
    if [row["task_index"] for row in rows] != list(range(len(rows))):
        raise DatasetError(f"{path}: task_index must count from 0 without gaps. Fetch it again.")
    return [row["task"] for row in rows]


def _episode_paths(
    root: Path, info: Mapping[str, Any], template_key: str, num_episodes: int, key: str = ""
) -> list[str]:
    template = info.get(template_key)
    try:
        return [
            str(template).format(
                episode_chunk=episode // info["chunks_size"], episode_index=episode, video_key=key
            )
            for episode in range(num_episodes)
        ]
    except (KeyError, ValueError, IndexError) as error:
        raise DatasetError(
            f"{root / INFO_PATH}: {template_key} {template!r} does not fit version v2.1 ({error}); "
            "expected {episode_chunk}, {episode_index} and {video_key}."
        ) from error


def _read_lines(path: Path, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            row = json.loads(line)
            missing = [key for key in keys if key not in row]
            if missing:
                raise DatasetError(
                    f"{path}, line {number}, lacks {missing[0]!r}; expected {', '.join(keys)}. "
                    "Fetch the dataset again."
                )
            rows.append(row)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(
            f"{path} cannot be read as JSON lines ({error}); fetch the dataset again."
        ) from error
    return rows
