# SPDX-License-Identifier: Apache-2.0
"""Version 3.0 of the format: many episodes per file, all tables in parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vlakit.datasets.feature_stats import Stats, parse_stats
from vlakit.datasets.layout import DATA_PATH, INFO_PATH, STATS_PATH, TASKS_PATH, VIDEO_PATH
from vlakit.datasets.metadata import EpisodeTable, VideoSpans
from vlakit.datasets.reading.parquet import column_names, read_table
from vlakit.errors import DatasetError
from vlakit.files import read_json


def read_stats(root: Path) -> Stats:
    """Return the statistics of `stats.json`.

    Raises:
        DatasetError: the file is missing or damaged.
    """
    path = root / STATS_PATH
    entries = read_json(
        path,
        DatasetError,
        missing=": a dataset needs statistics to normalise its features. Make them with "
        "vlakit.datasets.stats.write_stats(dataset).",
        damaged="Fetch or write the dataset again.",
    )
    return parse_stats(entries, path)


def read_tasks(root: Path) -> list[str]:
    """Return the instructions of `tasks.parquet`, by task index.

    Raises:
        DatasetError: the file or a column is missing or damaged.
    """
    path = root / TASKS_PATH
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
    names = column_names(path)
    missing = [name for name in columns if name not in names]
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
