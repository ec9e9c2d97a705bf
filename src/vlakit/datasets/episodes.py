# SPDX-License-Identifier: Apache-2.0
"""The files of a dataset of version 3.0: their names, and the tables of episodes and tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlakit.errors import DatasetError

INFO_PATH = "meta/info.json"
STATS_PATH = "meta/stats.json"
TASKS_PATH = "meta/tasks.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"


@dataclass(frozen=True)
class VideoSpans:
    """Where each episode lies in one camera's files."""

    paths: list[str]
    """Per episode: the file, relative to the root."""
    from_timestamps: np.ndarray
    """Per episode: time (s) of its first frame within the file, float64."""


@dataclass(frozen=True)
class EpisodeTable:
    """All episodes of a dataset, column by column; row i is episode i."""

    lengths: np.ndarray
    tasks: list[list[str]]
    data_paths: list[str]
    videos: dict[str, VideoSpans] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def ends(self) -> np.ndarray:
        """Global index after each episode's last frame, int64."""
        return np.cumsum(self.lengths)

    def __getitem__(self, episode: int) -> dict[str, Any]:
        """Return one episode under LeRobot's column names."""
        if not 0 <= episode < len(self):
            raise IndexError(f"episode {episode} of {len(self)}")
        end = int(self.ends[episode])
        return {
            "episode_index": episode,
            "tasks": list(self.tasks[episode]),
            "length": int(self.lengths[episode]),
            "dataset_from_index": end - int(self.lengths[episode]),
            "dataset_to_index": end,
        }


def read_json(path: Path) -> Any:
    """Read a JSON file, or raise DatasetError naming it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(
            f"{path} cannot be read as JSON ({error}); fetch or write the dataset again."
        ) from error


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a parquet file, or raise DatasetError naming it."""
    try:
        return pq.read_table(
            path, columns=list(columns) if columns else None, memory_map=True, partitioning=None
        )
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> DatasetError:
    """Return the error for a missing or damaged parquet file."""
    if not path.is_file():
        return DatasetError(
            f"{path} is missing, although the dataset's meta names it; fetch the dataset again."
        )
    return DatasetError(
        f"{path} is not a whole parquet file ({str(error).splitlines()[0]}). The copy or the "
        "recording was cut off: fetch the dataset again or record it anew."
    )


def read_tasks(path: Path) -> list[str]:
    """Return the instructions of `tasks.parquet`, by task index."""
    table = read_table(path)
    index = next((name for name in table.column_names if name != "task_index"), None)
    if index is None or "task_index" not in table.column_names:
        raise DatasetError(
            f"{path} has the columns {table.column_names}; expected task_index and task. Fetch it "
            "again."
        )
    # Parity: LeRobot looks tasks up by row position, so the row order is the meaning.
    return table.column(index).to_pylist()


def read_episodes(root: Path, info: Mapping[str, Any]) -> EpisodeTable:
    """Read `meta/episodes` of version 3.0.

    Raises:
        DatasetError: a file or column is missing or damaged, or the episodes have gaps.
    """
    folder = root / "meta" / "episodes"
    paths = sorted(folder.glob("*/*.parquet"))
    if not paths:
        raise DatasetError(
            f"{folder} holds no parquet file; expected the table of episodes. Fetch the dataset "
            "again."
        )
    videos = [name for name, entry in info["features"].items() if entry["dtype"] == "video"]
    columns = ["episode_index", "tasks", "length", "data/chunk_index", "data/file_index"]
    for key in videos:
        columns += [
            f"videos/{key}/{part}" for part in ("chunk_index", "file_index", "from_timestamp")
        ]
    table = pa.concat_tables([_read_columns(path, columns) for path in paths])
    order = np.argsort(table["episode_index"].to_numpy(), kind="stable")
    if not np.array_equal(table["episode_index"].to_numpy()[order], np.arange(len(order))):
        raise DatasetError(
            f"{folder}: episode_index must count from 0 without gaps, found "
            f"{len(order)} rows that do not. Fetch the dataset again."
        )
    table = table.take(order)
    data_template = _template(root, info, "data_path")
    return EpisodeTable(
        lengths=table["length"].to_numpy(),
        tasks=table["tasks"].to_pylist(),
        data_paths=_fill(data_template, table, "data", root),
        videos={
            key: VideoSpans(
                paths=_fill(_template(root, info, "video_path"), table, f"videos/{key}", root, key),
                from_timestamps=table[f"videos/{key}/from_timestamp"].to_numpy(),
            )
            for key in videos
        },
    )


def _read_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error
    missing = [name for name in columns if name not in schema.names]
    if missing:
        raise DatasetError(
            f"{path} lacks the column {missing[0]!r}, which the features in info.json call for; "
            "fetch the dataset again."
        )
    return read_table(path, columns)


def _template(root: Path, info: Mapping[str, Any], key: str) -> str:
    if not info.get(key):
        raise DatasetError(
            f"{root / INFO_PATH} lacks the key {key!r}, which its features call for; fetch it "
            "again."
        )
    return info[key]


def _fill(template: str, table: pa.Table, prefix: str, root: Path, key: str = "") -> list[str]:
    chunks = table[f"{prefix}/chunk_index"].to_pylist()
    files = table[f"{prefix}/file_index"].to_pylist()
    try:
        return [
            template.format(video_key=key, chunk_index=chunk, file_index=file)
            for chunk, file in zip(chunks, files, strict=True)
        ]
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise DatasetError(
            f"{root / INFO_PATH}: path template {template!r} does not fit version v3.0 ({error}); "
            f"expected the form {VIDEO_PATH if key else DATA_PATH}."
        ) from error
