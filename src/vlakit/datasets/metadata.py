# SPDX-License-Identifier: Apache-2.0
"""What a dataset says about itself: features, episodes, tasks, statistics, where its files are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.datasets.feature_stats import FeatureStats, Stats
from vlakit.errors import DatasetError
from vlakit.features import CAMERA_DTYPES, feature_type


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
        load_stats: reads the statistics; called when `stats` is first asked for.
        stats: per feature and statistic an array; see `feature_stats.py`.
    """

    def __init__(
        self,
        repo_id: str,
        root: Path,
        info: dict[str, Any],
        *,
        episodes: EpisodeTable,
        tasks: list[str],
        load_stats: Callable[[], Stats],
    ) -> None:
        self.repo_id = repo_id
        self.root = root
        self.info = info
        self.episodes = episodes
        self.tasks = tasks
        self.load_stats = load_stats
        self._stats: Stats | None = None

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
            self._stats = self.load_stats()
            self._check_stats(self._stats)
        return self._stats

    @stats.setter
    def stats(self, stats: Stats) -> None:
        self._stats = stats

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
            self._check_sizes(name, entry, stats[name])

    def _check_sizes(self, name: str, entry: Mapping[str, Any], stats: FeatureStats) -> None:
        if entry["dtype"] in CAMERA_DTYPES:
            return
        expected = math.prod(entry["shape"])
        # Version 3.0 has one number per entry of the last axis, version 2.1 one per element.
        allowed = {expected, *entry["shape"][-1:]}
        for stat, values in stats.items():
            if stat != "count" and values.size not in allowed:
                raise DatasetError(
                    f"the statistics in {self.root / 'meta'} hold {values.size} numbers as {stat} "
                    f"of feature {name!r}; expected {expected}, its size in info.json. Make them "
                    "anew with vlakit.datasets.stats.write_stats(dataset)."
                )

    def files_of(self, episodes: Sequence[int]) -> list[str]:
        """Return the data and video files (relative to the root) that hold these episodes."""
        paths = {self.episodes.data_paths[episode] for episode in episodes}
        for spans in self.episodes.videos.values():
            paths.update(spans.paths[episode] for episode in episodes)
        return sorted(paths)
