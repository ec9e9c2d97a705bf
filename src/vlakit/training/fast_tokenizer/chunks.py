# SPDX-License-Identifier: Apache-2.0
"""From actions to normalised chunks: those that a vocabulary is fitted on, those a policy meets.

The vocabulary is fitted on full windows inside episodes, a sample of them, clipped in the quantile
modes: LeRobot's rule. A policy meets one chunk per frame, at the end of an episode filled up with
its last action, and clips nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from vlakit.datasets.action_window import window_rows
from vlakit.features import (
    ACTION,
    NEEDED_STATS,
    FeatureType,
    NormalizationMode,
    PolicyFeature,
)
from vlakit.processing.fast.dct import dct_matrix
from vlakit.processing.normalize import Normalizer, Unnormalizer
from vlakit.training.fast_tokenizer.actions import Actions
from vlakit.training.fast_tokenizer.dimensions import Dimensions

Float64 = NDArray[np.float64]
CLIPPED_MODES = (NormalizationMode.QUANTILES, NormalizationMode.QUANTILE10)
BLOCK_NUMBERS = 500_000
"""Numbers per block: they stay in the processor's cache."""


class Chunks:
    """The chunks of a dataset, by the row of their first frame."""

    def __init__(
        self, actions: Actions, dimensions: Dimensions, horizon: int, mode: NormalizationMode
    ) -> None:
        """Take the actions, and how chunks are made of them."""
        self.actions = actions
        self.dims = dimensions.encoded
        self.horizon = horizon
        self.mode = mode
        self._relative = [(self.dims.index(dim), dim) for dim in dimensions.relative]
        self._values = actions.values[:, self.dims]
        lengths = actions.ends - actions.starts
        self._row_starts = np.zeros(len(actions.values), dtype=np.int64)
        self._row_ends = np.zeros(len(actions.values), dtype=np.int64)
        for start, end in zip(actions.starts, actions.ends, strict=True):
            self._row_starts[start:end], self._row_ends[start:end] = start, end
        self.num_skipped = int((lengths < horizon).sum())
        stats = {name: values[self.dims] for name, values in actions.stats.items()}
        self._bounds = [stats[name].astype(np.float32) for name in NEEDED_STATS[mode]]
        settings = (
            {ACTION: PolicyFeature(FeatureType.ACTION, (len(self.dims),))},
            {FeatureType.ACTION: mode},
            {ACTION: stats},
        )
        # The policy's own step: same arithmetic, same floor under dimensions that hardly move.
        self._normalizer = Normalizer(*settings)
        self.near_constant = self._normalizer.near_constant().get(ACTION, [])
        unit = torch.ones(len(self.dims), dtype=torch.float64)
        unnormalizer = Unnormalizer(*settings)
        self.unit = (
            unnormalizer({ACTION: unit})[ACTION] - unnormalizer({ACTION: 0 * unit})[ACTION]
        ).numpy()
        """(dims,) size of one normalised unit in the robot's units."""

    def sampled_rows(self, fraction: float) -> NDArray[np.int64]:
        """Return the first rows of the full windows that LeRobot would sample."""
        rows = []
        for episode, start, end in zip(
            self.actions.episodes, self.actions.starts, self.actions.ends, strict=True
        ):
            count = int(end - start) - self.horizon + 1
            if count < 1:
                continue
            picked = np.arange(count)
            if fraction < 1:
                # Parity: LeRobot seeds by the hash of the episode's number, which is the number.
                random = np.random.RandomState(int(episode) % 2**31)
                picked = random.choice(count, size=max(1, int(count * fraction)), replace=False)
            rows.append(start + picked)
        return np.concatenate(rows)

    @cached_property
    def all_rows(self) -> NDArray[np.int64]:
        """Every row that a policy trains on: all frames of the episodes."""
        return np.concatenate(
            [
                np.arange(start, end)
                for start, end in zip(self.actions.starts, self.actions.ends, strict=True)
            ]
        )

    def raw(self, rows: NDArray[np.int64]) -> NDArray:
        """Return chunks (n, horizon, dims) in the robot's units, relative where asked for."""
        steps = np.arange(self.horizon)
        frames, _ = window_rows(rows, self._row_starts[rows], self._row_ends[rows], steps)
        chunks = self._values[frames]
        for place, dim in self._relative:
            assert self.actions.states is not None
            chunks[:, :, place] -= self.actions.states[rows, None, dim]
        return chunks

    def met(self, rows: NDArray[np.int64]) -> Float64:
        """Return chunks (n, horizon, dims) as a policy meets them: in float32, not clipped."""
        return self._scaled(self.raw(rows)).astype(np.float64)

    def _scaled(self, raw: NDArray) -> NDArray:
        return self._normalizer({ACTION: torch.from_numpy(raw)})[ACTION].numpy()

    def for_fitting(self, rows: NDArray[np.int64]) -> tuple[Float64, Float64]:
        """Return chunks as LeRobot fits on them, and how much of them was clipped.

        Args:
            rows: first rows of full windows.

        Returns:
            (n, horizon, dims), in the quantile modes cut to the quantile range; and the share of
            the numbers that were cut, (dims,).
        """
        chunks = np.empty((len(rows), self.horizon, len(self.dims)))
        cut = np.zeros(self.horizon * len(self.dims))
        for place in self._blocks(len(rows)):
            raw = self.raw(rows[place])
            if self.mode in CLIPPED_MODES:
                flat = raw.reshape(len(raw), -1)  # long rows: numpy is slow where they are short
                low, high = (np.tile(bound, self.horizon) for bound in self._bounds)
                cut += ((flat < low) | (flat > high)).sum(axis=0)
                np.clip(flat, low, high, out=flat)
            # LeRobot computes in float64, a policy in float32.
            chunks[place] = self._scaled(raw.astype(np.float64))
        share = cut.reshape(self.horizon, -1).sum(axis=0) / (len(rows) * self.horizon)
        return chunks, share

    def blocks(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Float64]]:
        """Yield rows and their normalised chunks as a policy meets them, some at a time."""
        for place in self._blocks(len(rows)):
            yield rows[place], self.met(rows[place])

    def _blocks(self, count: int) -> Iterator[slice]:
        size = max(1, BLOCK_NUMBERS // (self.horizon * len(self.dims)))
        return (slice(start, start + size) for start in range(0, count, size))

    def row_of_lowest_coefficient(self) -> int:
        """Return the row whose chunk has the lowest DCT coefficient of all that a policy meets."""
        lowest, found = np.inf, 0
        for rows, chunks in self.blocks(self.all_rows):
            coefficients = np.matmul(dct_matrix(self.horizon), chunks).min(axis=(1, 2))
            place = int(coefficients.argmin())
            if coefficients[place] < lowest:
                lowest, found = float(coefficients[place]), int(rows[place])
        return found
