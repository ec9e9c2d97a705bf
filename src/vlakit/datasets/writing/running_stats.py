# SPDX-License-Identifier: Apache-2.0
"""Statistics of a dataset being written: of each episode, and at the end of all frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.datasets.feature_stats import PixelHistogram, Stats, array_stats, camera_histogram
from vlakit.datasets.reading.parquet import flat_values, read_table
from vlakit.datasets.writing.episode_buffer import EpisodeBuffer
from vlakit.datasets.writing.episode_data import Columns, camera_counts


class RunningStats:
    """Pixels are counted as episodes come; numbers are read back from the data files at the end.

    Args:
        features: of the dataset.
    """

    def __init__(self, features: Mapping[str, Mapping[str, Any]]) -> None:
        self._features = features
        self._histograms: dict[str, PixelHistogram] = {}

    def count_existing(
        self,
        name: str,
        read: Callable[[np.ndarray], Any],
        episode_bounds: tuple[np.ndarray, np.ndarray],
    ) -> None:
        """Count the pixels of a camera of the dataset that is gone on with."""
        self._histograms[name] = camera_histogram(read, episode_bounds)

    def add_episode(self, buffer: EpisodeBuffer, columns: Columns) -> Stats:
        """Return the statistics of one episode, in the order of the features, and remember it."""
        stats = {}
        for name in self._features:
            values = columns.get(name)
            if isinstance(values, np.ndarray):
                stats[name] = array_stats(values)
            elif name in buffer.cameras:
                counts = camera_counts(buffer, name)
                self._histograms.setdefault(name, PixelHistogram(len(counts.counts))).merge(counts)
                stats[name] = counts.stats()
        return stats

    def of_all_frames(self, data_files: Sequence[Path], num_frames: int) -> Stats:
        """Return the statistics of the whole dataset."""
        stats = {}
        for name, entry in self._features.items():
            if name in self._histograms:
                stats[name] = self._histograms[name].stats()
            elif entry["dtype"] != "string":
                columns = [read_table(path, [name])[name] for path in data_files]
                flat = [flat_values(column).to_numpy(zero_copy_only=False) for column in columns]
                stats[name] = array_stats(np.concatenate(flat).reshape(num_frames, *entry["shape"]))
        return stats
