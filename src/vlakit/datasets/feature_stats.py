# SPDX-License-Identifier: Apache-2.0
"""Statistics of features: min, max, mean, std (population), count and five quantiles.

Shapes: a vector feature of size n has (n,), a scalar (1,), a camera (channels, 1, 1) with values in
[0, 1]; a feature with more axes has those of its last one; `count` is (1,). Quantiles are those of
all the values, numpy's linear interpolation. The reference instead averages the quantiles of the
episodes, which is no quantile of the data: that rule is `aggregate_reference`, kept for the parity
test and for what has no data at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlakit.errors import DatasetError
from vlakit.files import write_json

if TYPE_CHECKING:
    from torch import Tensor

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}

FeatureStats = dict[str, np.ndarray]
Stats = dict[str, FeatureStats]


def array_stats(values: np.ndarray, *, per_element: bool = False) -> FeatureStats:
    """Return the statistics of a numeric feature over its frames.

    Args:
        values: (frames,) or (frames, *shape).
        per_element: give every element of a feature with several axes its own, as version 2.1 does.

    Returns:
        Arrays of the size of the feature's last axis, (1,) for a scalar, float64; `count`, the
        frames, int64 (1,).
    """
    values = np.asarray(values)
    num_frames, shape = len(values), values.shape[1:] or (1,)
    # Parity: LeRobot folds the other axes into the frames, and can join nothing else to its own.
    values = values.reshape(-1, *(shape if per_element else shape[-1:])).astype(np.float64)
    stats = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "count": np.array([num_frames]),
    }
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    stats.update(zip(QUANTILES, quantiles, strict=True))
    return stats


class PixelHistogram:
    """Counts of the 256 pixel values per channel: exact statistics of uint8 images."""

    def __init__(self, channels: int) -> None:
        self.counts = np.zeros((channels, 256), dtype=np.int64)
        self.num_images = 0

    def add(self, images: np.ndarray) -> None:
        """Add images, uint8 (n, channels, height, width)."""
        for channel in range(len(self.counts)):
            self.counts[channel] += np.bincount(images[:, channel].ravel(), minlength=256)
        self.num_images += len(images)

    def merge(self, other: PixelHistogram) -> None:
        """Add the images of another histogram."""
        self.counts += other.counts
        self.num_images += other.num_images

    def stats(self) -> FeatureStats:
        """Return the statistics, (channels, 1, 1), of pixels scaled to [0, 1]; count = images."""
        levels = np.arange(256) / 255.0
        total = self.counts.sum(axis=1, keepdims=True)  # (channels, 1)
        present = self.counts > 0
        mean = (self.counts * levels).sum(axis=1, keepdims=True) / total
        variance = (self.counts * (levels - mean) ** 2).sum(axis=1, keepdims=True) / total
        stats = {
            "min": levels[present.argmax(axis=1)],
            "max": levels[255 - present[:, ::-1].argmax(axis=1)],
            "mean": mean,
            "std": np.sqrt(variance),
        }
        cumulative = self.counts.cumsum(axis=1)
        for name, share in QUANTILES.items():
            stats[name] = np.array([_histogram_quantile(row, share) for row in cumulative]) / 255.0
        shaped = {name: value.reshape(-1, 1, 1) for name, value in stats.items()}
        ordered = {name: shaped.pop(name) for name in ("min", "max", "mean", "std")}
        return {**ordered, "count": np.array([self.num_images]), **shaped}


def _histogram_quantile(cumulative: np.ndarray, share: float) -> float:
    """Return numpy's linear quantile of the values 0..255 that `cumulative` (256,) counts."""
    position = share * (cumulative[-1] - 1)
    below = int(np.floor(position))
    low = np.searchsorted(cumulative, below, side="right")
    high = np.searchsorted(cumulative, min(below + 1, cumulative[-1] - 1), side="right")
    return float(low + (high - low) * (position - below))


def sampled_frames(length: int) -> np.ndarray:
    """Return the frames of an episode whose images count for the statistics.

    Source: LeRobot's rule: length^0.75 frames, at least 100 (or all), at most 10,000, evenly
        spaced.
    """
    count = max(min(100, length), min(int(length**0.75), 10_000))
    return np.round(np.linspace(0, length - 1, count)).astype(np.int64)


def image_stride(height: int, width: int) -> int:
    """Return the pixel stride that large images are thinned by: about 150 pixels remain."""
    longest = max(height, width)
    return 1 if longest < 300 else longest // 150


def aggregate_reference(
    per_episode: Sequence[Mapping[str, Mapping[str, np.ndarray]]],
) -> Stats:
    """Fold the statistics of episodes into those of the dataset, as LeRobot 0.6.1 does.

    Exact for min, max, mean and std. Parity: a quantile becomes the mean of the episodes'
    quantiles, weighted by their frames, which is not a quantile of the dataset.
    """
    features = {name: None for stats in per_episode for name in stats}
    return {
        name: _fold([stats[name] for stats in per_episode if name in stats]) for name in features
    }


def _fold(parts: Sequence[Mapping[str, np.ndarray]]) -> FeatureStats:
    def stacked(name: str) -> np.ndarray:
        return np.stack([np.asarray(part[name], dtype=np.float64) for part in parts])

    counts = stacked("count")  # (episodes, 1)
    mean, std = stacked("mean"), stacked("std")
    weights = counts.reshape(-1, *[1] * (mean.ndim - 1)) / counts.sum()
    total_mean = (weights * mean).sum(axis=0)
    folded = {
        "min": stacked("min").min(axis=0),
        "max": stacked("max").max(axis=0),
        "mean": total_mean,
        "std": np.sqrt((weights * (std**2 + (mean - total_mean) ** 2)).sum(axis=0)),
        "count": counts.sum(axis=0).astype(np.int64),
    }
    for name in QUANTILES:
        if all(name in part for part in parts):
            folded[name] = (weights * stacked(name)).sum(axis=0)
    return folded


def camera_histogram(
    read: Callable[[np.ndarray], Tensor],
    episode_bounds: tuple[np.ndarray, np.ndarray],
    max_frames: int | None = None,
) -> PixelHistogram:
    """Count the pixels of a camera over the frames that LeRobot's rule samples.

    Args:
        read: rows (n,) of the dataset -> uint8 (n, channels, height, width).
        episode_bounds: first row and row after the last of each episode, (episodes,) each.
        max_frames: decode at most about this many, evenly spread over the sampled ones.
    """
    rows = np.concatenate(
        [start + sampled_frames(end - start) for start, end in zip(*episode_bounds, strict=True)]
    )
    if max_frames is not None and len(rows) > max_frames:
        rows = rows[np.linspace(0, len(rows) - 1, max_frames).round().astype(np.int64)]
    histogram = PixelHistogram(read(rows[:1]).shape[1])
    for part in np.array_split(rows, max(1, len(rows) // 64)):
        images = read(part).numpy()
        stride = image_stride(images.shape[2], images.shape[3])
        histogram.add(images[:, :, ::stride, ::stride])
    return histogram


def parse_stats(
    entries: Mapping[str, Mapping[str, Any]], source: Path | str = "the statistics"
) -> Stats:
    """Return statistics as float64 arrays, counts as int64, from their JSON form.

    Raises:
        DatasetError: an entry is no number or array; the message begins with `source`.
    """
    parsed: Stats = {}
    for feature, stats in entries.items():
        try:
            parsed[feature] = {
                name: np.asarray(value, dtype=np.int64 if name == "count" else np.float64)
                for name, value in stats.items()
            }
        except (AttributeError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{source}: the entry of feature {feature!r} is not readable ({error}); expected "
                "numbers by statistic. Make them anew with vlakit.datasets.stats.write_stats."
            ) from error
    return parsed


def save_stats(stats: Stats, path: Path) -> None:
    """Write `stats.json`."""
    entries = {
        feature: {name: np.asarray(value).tolist() for name, value in entry.items()}
        for feature, entry in stats.items()
    }
    write_json(path, entries)
