# SPDX-License-Identifier: Apache-2.0
"""Statistics of actions relative to the state, which a dataset does not store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlakit.datasets.feature_stats import FeatureStats, array_stats
from vlakit.errors import DatasetError

MOST_NUMBERS = 50_000_000
"""Chunks are thinned out evenly above this many numbers, 400 MB."""


def relative_action_stats(
    actions: np.ndarray,
    states: np.ndarray,
    episodes: tuple[np.ndarray, np.ndarray],
    dims: Sequence[int],
    chunk_size: int,
) -> FeatureStats:
    """Return the statistics of all chunks that lie within an episode, as LeRobot defines them.

    Args:
        actions: (frames, action_dim).
        states: (frames, state_dim).
        episodes: first row and row after the last of each episode.
        dims: dimensions from which the state at the chunk's start is subtracted.
        chunk_size: actions of a chunk.

    Raises:
        DatasetError: no episode is as long as a chunk, or the state lacks a dimension.
    """
    starts = [np.arange(start, end - chunk_size + 1) for start, end in zip(*episodes, strict=True)]
    rows = np.concatenate(starts) if starts else np.zeros(0, dtype=np.int64)
    if not len(rows):
        raise DatasetError(
            f"no episode is as long as a chunk of --policy.chunk_size={chunk_size} actions, so "
            "relative actions have no statistics. Give a smaller --policy.chunk_size."
        )
    if dims and max(dims) >= states.shape[1]:
        raise DatasetError(
            f"action dimension {max(dims)} is to be relative to the state, which has only "
            f"{states.shape[1]} dimensions. Name what stays absolute in "
            "--policy.relative_exclude_joints."
        )
    most = max(1, MOST_NUMBERS // (chunk_size * actions.shape[1]))
    if len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
    chunks = actions[rows[:, None] + np.arange(chunk_size)]
    columns = list(dims)
    chunks[:, :, columns] -= states[rows][:, None, columns]
    return array_stats(chunks.reshape(-1, chunks.shape[2]))
