# SPDX-License-Identifier: Apache-2.0
"""What a dataset says about itself: features, episodes, tasks, statistics, where its files are.

Version 3.0 is read here; `v21.py` brings version 2.1 into the same form.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlakit.errors import DatasetError
from vlakit.features import CAMERA_DTYPES, feature_type

INFO_PATH = "meta/info.json"
STATS_PATH = "meta/stats.json"
TASKS_PATH = "meta/tasks.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"

Stats = dict[str, dict[str, np.ndarray]]


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


class DatasetMetadata:
    """The contents of `meta/`.

    Attributes:
        info: `info.json` as it stands, feature shapes as tuples.
        episodes: the table of episodes.
        tasks: instructions; a frame's `task_index` is a position in this list.
        stats: per feature and statistic an array; see `datasets/stats.py`. Loaded when first asked
            for.
    """

    def __init__(
        self,
        repo_id: str,
        root: Path,
        info: dict[str, Any],
        episodes: EpisodeTable,
        tasks: list[str],
    ) -> None:
        self.repo_id = repo_id
        self.root = root
        self.info = info
        self.episodes = episodes
        self.tasks = tasks
        self._stats: Stats | None = None
        self._stats_loader: Callable[[], Stats] | None = None

    @property
    def version(self) -> str:
        return self.info["codebase_version"]

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        return self.info["features"]

    @property
    def fps(self) -> int | float:
        fps = self.info["fps"]
        return int(fps) if float(fps).is_integer() else fps

    @property
    def robot_type(self) -> str | None:
        return self.info.get("robot_type")

    @property
    def total_episodes(self) -> int:
        return len(self.episodes)

    @property
    def total_frames(self) -> int:
        return int(self.episodes.lengths.sum())

    @property
    def total_tasks(self) -> int:
        return len(self.tasks)

    @property
    def camera_keys(self) -> list[str]:
        """Names of the features that are images, however they are stored."""
        return [name for name, entry in self.features.items() if entry["dtype"] in CAMERA_DTYPES]

    @property
    def video_keys(self) -> list[str]:
        return [name for name, entry in self.features.items() if entry["dtype"] == "video"]

    @property
    def image_keys(self) -> list[str]:
        return [name for name, entry in self.features.items() if entry["dtype"] == "image"]

    @property
    def stats(self) -> Stats:
        """Statistics of every feature a policy can use.

        Raises:
            DatasetError: the file or a feature's entry is missing.
        """
        if self._stats is None:
            self._stats = (self._stats_loader or self.load_stats)()
            self._check_stats(self._stats)
        return self._stats

    @stats.setter
    def stats(self, stats: Stats) -> None:
        self._stats = stats

    def use_stats_loader(self, load: Callable[[], Stats]) -> None:
        """Let `load` make the statistics when they are first asked for."""
        self._stats_loader = load

    def load_stats(self) -> Stats:
        """Return the statistics as the dataset stores them."""
        path = self.root / STATS_PATH
        if not path.is_file():
            raise DatasetError(
                f"{path} is missing: a dataset needs statistics to normalise its features. Make "
                "them "
                "with vlakit.datasets.stats.write_stats(dataset)."
            )
        return parse_stats(read_json(path))

    def _check_stats(self, stats: Stats) -> None:
        for name, entry in self.features.items():
            if feature_type(name, entry["dtype"]) is None or entry["dtype"] == "string":
                continue
            missing = {"min", "max", "mean", "std"} - stats.get(name, {}).keys()
            if missing:
                raise DatasetError(
                    f"the statistics in {self.root / 'meta'} lack {', '.join(sorted(missing))} of "
                    f"feature {name!r}; expected an entry for every feature of info.json. Make "
                    "them "
                    "anew with vlakit.datasets.stats.write_stats(dataset)."
                )

    def files_of(self, episodes: Sequence[int]) -> list[str]:
        """Return the data and video files (relative to the root) that hold these episodes."""
        paths = {self.episodes.data_paths[episode] for episode in episodes}
        for spans in self.episodes.videos.values():
            paths.update(spans.paths[episode] for episode in episodes)
        return sorted(paths)


def load_metadata(repo_id: str, root: Path) -> DatasetMetadata:
    """Read `meta/` of a dataset of version 3.0 or 2.1.

    Raises:
        DatasetError: a file is missing, damaged, of another version, or disagrees with another.
    """
    info = _read_info(root / INFO_PATH)
    major, _, minor = str(info["codebase_version"]).lstrip("v").partition(".")
    if major == "3":
        metadata = DatasetMetadata(
            repo_id, root, info, _read_episodes(root, info), _read_tasks(root / TASKS_PATH)
        )
    elif (major, minor) == ("2", "1"):
        from vlakit.datasets.v21 import load_metadata_v21

        metadata = load_metadata_v21(repo_id, root, info)
    else:
        todo = (
            "Install a newer vlakit."
            if major.isdigit() and int(major) > 3
            else "Convert it with LeRobot's conversion scripts first."
        )
        raise DatasetError(
            f"{root / INFO_PATH}: codebase_version is {info['codebase_version']}; vlakit reads "
            "v3.0 "
            f"and v2.1. {todo}"
        )
    _check_totals(metadata)
    return metadata


def _check_totals(metadata: DatasetMetadata) -> None:
    for key, found in (
        ("total_episodes", metadata.total_episodes),
        ("total_frames", metadata.total_frames),
    ):
        if metadata.info[key] != found:
            raise DatasetError(
                f"{metadata.root / INFO_PATH}: {key} is {metadata.info[key]}, but the episodes in "
                "meta "
                f"hold {found}. The recording was cut off or files are missing: fetch the dataset "
                "again or record it anew."
            )


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


def _read_info(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DatasetError(
            f"{path} is missing: the folder is not a LeRobot dataset, or its recording was never "
            "finalized. Check --dataset.root."
        )
    info = read_json(path)
    if not isinstance(info, dict):
        raise DatasetError(f"{path} must hold a JSON object, found {type(info).__name__}.")
    for key in ("codebase_version", "fps", "features", "total_episodes", "total_frames"):
        if key not in info:
            raise DatasetError(
                f"{path} lacks the key {key!r}, which every LeRobot dataset has; fetch it again."
            )
    if not isinstance(info["fps"], (int, float)) or info["fps"] <= 0:
        raise DatasetError(f"{path}: fps is {info['fps']!r}; expected a positive number.")
    for name, entry in info["features"].items():
        _check_feature(path, name, entry)
        entry["shape"] = tuple(entry["shape"])
    return info


def _check_feature(path: Path, name: str, entry: Any) -> None:
    if not isinstance(entry, Mapping) or "dtype" not in entry or "shape" not in entry:
        raise DatasetError(
            f"{path}: feature {name!r} needs dtype and shape, found {entry!r}; correct the file."
        )
    details = entry.get("info") or entry.get("video_info") or {}
    if details.get("is_depth_map") or details.get("video.is_depth_map"):
        raise DatasetError(
            f"{path}: feature {name!r} is a depth camera, which vlakit cannot decode; remove the "
            "feature from the dataset."
        )


def _read_tasks(path: Path) -> list[str]:
    table = read_table(path)
    index = next((name for name in table.column_names if name != "task_index"), None)
    if index is None or "task_index" not in table.column_names:
        raise DatasetError(
            f"{path} has the columns {table.column_names}; expected task_index and task. Fetch it "
            "again."
        )
    # Parity: LeRobot looks tasks up by row position, so the row order is the meaning.
    return table.column(index).to_pylist()


def _read_episodes(root: Path, info: Mapping[str, Any]) -> EpisodeTable:
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
            "fetch "
            "the dataset again."
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


def parse_stats(entries: Mapping[str, Mapping[str, Any]]) -> Stats:
    """Return statistics as float64 arrays, counts as int64, from their JSON form."""
    return {
        feature: {
            name: np.asarray(value, dtype=np.int64 if name == "count" else np.float64)
            for name, value in stats.items()
        }
        for feature, stats in entries.items()
    }
