# SPDX-License-Identifier: Apache-2.0
"""Statistics of a whole dataset; `feature_stats.py` has those of one feature."""

from __future__ import annotations

from functools import partial

from vlakit.datasets.feature_stats import Stats, array_stats, camera_histogram, save_stats
from vlakit.datasets.layout import STATS_PATH
from vlakit.datasets.reader import LeRobotDataset
from vlakit.errors import DatasetError


def compute_stats(dataset: LeRobotDataset) -> Stats:
    """Return the statistics of all frames of a dataset, of sampled frames for cameras."""
    stats = {name: array_stats(values) for name, values in dataset.frames.numeric.items()}
    for name in dataset.meta.camera_keys:
        read = partial(dataset.read_images, name)
        stats[name] = camera_histogram(read, dataset.frames.episode_bounds).stats()
    return stats


def write_stats(dataset: LeRobotDataset) -> None:
    """Compute the statistics of a whole v3.0 dataset and write its `stats.json`.

    Raises:
        DatasetError: only some of the episodes are loaded, or the dataset is of version 2.1.
    """
    if dataset.num_frames != dataset.meta.total_frames:
        raise DatasetError(
            f"write_stats got {dataset.num_frames} of {dataset.meta.total_frames} frames; open the "
            "dataset without episodes=."
        )
    if not dataset.meta.version.startswith("v3"):
        raise DatasetError(
            f"write_stats got a {dataset.meta.version} dataset, expected v3.0; convert it first."
        )
    stats = compute_stats(dataset)
    save_stats(stats, dataset.root / STATS_PATH)
    dataset.meta.stats = stats
