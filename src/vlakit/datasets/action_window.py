# SPDX-License-Identifier: Apache-2.0
"""Windows of frames around the current one: which rows they are and which of them are padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vlakit.errors import DatasetError, did_you_mean


def chunk_delta_timestamps(chunk_size: int, fps: float) -> list[float]:
    """Return the times (s, relative to the current frame) of an action chunk: 0, 1/fps, ..."""
    return [step / fps for step in range(chunk_size)]


def frame_offsets(
    delta_timestamps: Mapping[str, Sequence[float]],
    features: Mapping[str, object],
    fps: float,
    tolerance_s: float,
) -> dict[str, np.ndarray]:
    """Convert times relative to the current frame (s) into frame offsets, int64 (window,).

    Raises:
        DatasetError: a name is no feature of the dataset, or a time is no multiple of 1/fps.
    """
    offsets = {}
    for name, deltas in delta_timestamps.items():
        if name not in features:
            raise DatasetError(
                f"delta_timestamps names {name!r}, which the dataset does not have; it has "
                f"{', '.join(features)}.{did_you_mean(name, features)}"
            )
        times = np.asarray(deltas, dtype=np.float64)
        steps = np.round(times * fps)
        worst = np.abs(steps / fps - times)
        if worst.size and worst.max() > tolerance_s:
            raise DatasetError(
                f"delta_timestamps[{name!r}] holds {times[worst.argmax()]} s, which is no multiple "
                f"of 1/fps = {1 / fps:.6g} s (tolerance {tolerance_s} s); use whole frames."
            )
        offsets[name] = steps.astype(np.int64)
    return offsets


def window_rows(
    rows: np.ndarray, starts: np.ndarray, ends: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of each window and the mask of those outside the episode.

    Args:
        rows: (batch,) current rows.
        starts: (batch,) first row of each one's episode.
        ends: (batch,) row after the last of each one's episode.
        offsets: (window,) frames relative to the current row.

    Returns:
        rows (batch, window), clamped to the episode, and is_pad (batch, window), True where
        clamped.
    """
    wanted = rows[:, None] + offsets[None, :]
    low, high = starts[:, None], ends[:, None] - 1
    return np.clip(wanted, low, high), (wanted < low) | (wanted > high)
