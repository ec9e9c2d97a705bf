# SPDX-License-Identifier: Apache-2.0
"""What a dataset says about itself: features, episodes, tasks, statistics, where its files are.

Version 3.0 is read here; `v21.py` brings version 2.1 into the same form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.datasets.episodes import (
    INFO_PATH,
    STATS_PATH,
    TASKS_PATH,
    EpisodeTable,
    read_episodes,
    read_json,
    read_tasks,
)
from vlakit.errors import DatasetError
from vlakit.features import CAMERA_DTYPES, feature_type

Stats = dict[str, dict[str, np.ndarray]]


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
                "them with vlakit.datasets.stats.write_stats(dataset)."
            )
        return parse_stats(read_json(path))

    def _check_stats(self, stats: Stats) -> None:
        for name, entry in self.features.items():
            is_text = entry["dtype"] in ("string", "language")
            if is_text or feature_type(name, entry["dtype"]) is None:
                continue
            missing = {"min", "max", "mean", "std"} - stats.get(name, {}).keys()
            if missing:
                raise DatasetError(
                    f"the statistics in {self.root / 'meta'} lack {', '.join(sorted(missing))} of "
                    f"feature {name!r}; expected an entry for every feature of info.json. Make "
                    "them anew with vlakit.datasets.stats.write_stats(dataset)."
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
            repo_id, root, info, read_episodes(root, info), read_tasks(root / TASKS_PATH)
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
            f"v3.0 and v2.1. {todo}"
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
                f"meta hold {found}. The recording was cut off or files are missing: fetch the "
                "dataset again or record it anew."
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


def parse_stats(entries: Mapping[str, Mapping[str, Any]]) -> Stats:
    """Return statistics as float64 arrays, counts as int64, from their JSON form."""
    return {
        feature: {
            name: np.asarray(value, dtype=np.int64 if name == "count" else np.float64)
            for name, value in stats.items()
        }
        for feature, stats in entries.items()
    }
