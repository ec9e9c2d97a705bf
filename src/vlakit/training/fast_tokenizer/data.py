# SPDX-License-Identifier: Apache-2.0
"""What a vocabulary is fitted on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from vlakit.features import NormalizationMode
from vlakit.processing.fast.normalizer import FastNormalizer
from vlakit.training.fast_tokenizer.actions import (
    Actions,
    check_long_enough,
    read_actions,
    scales_relative,
)
from vlakit.training.fast_tokenizer.chunks import CLIPPED_MODES, Chunks, Float64
from vlakit.training.fast_tokenizer.dimensions import Dimensions, choose_dimensions
from vlakit.training.relative_stats import relative_action_stats
from vlakit.training.tokenizer_config import TokenizerFlags


@dataclass(frozen=True)
class TrainingData:
    """What a vocabulary is fitted on, and where it comes from."""

    flags: TokenizerFlags
    actions: Actions
    dimensions: Dimensions
    chunks: Chunks

    @cached_property
    def _sampled(self) -> tuple[Float64, Float64]:
        return self.chunks.for_fitting(self.chunks.sampled_rows(self.flags.sample_fraction))

    @property
    def sampled(self) -> Float64:
        """LeRobot's training chunks, normalised, (n, horizon, dims)."""
        return self._sampled[0]

    @property
    def clipped_share(self) -> Float64:
        """Share of the sample's numbers that were cut to the quantile range, (dims,)."""
        return self._sampled[1]

    @cached_property
    def training(self) -> Float64:
        """The chunks that the vocabulary is fitted on.

        The chunk with the lowest coefficient of all joins the sample: it sets the lowest that the
        tokenizer has. Upwards there is no limit. With `--reference` the sample stands alone.
        """
        if self.flags.reference:
            return self.sampled
        row = np.array([self.chunks.row_of_lowest_coefficient()])
        return np.concatenate([self.sampled, self.chunks.met(row)])

    def normalizer(self) -> FastNormalizer:
        """Return what is stored beside the tokenizer."""
        return FastNormalizer(
            mode=self.chunks.mode,
            encoded_dims=self.dimensions.ranges,
            relative_dims=self.dimensions.relative,
            stats={name: values.tolist() for name, values in self.actions.stats.items()},
            repo_id=self.flags.repo_id,
            clip=self.chunks.mode in CLIPPED_MODES,
        )


def read_training_data(flags: TokenizerFlags) -> TrainingData:
    """Read the dataset and choose the chunks; nothing is fitted yet.

    Raises:
        VlakitError: the dataset cannot be read, or does not fit the flags.
    """
    actions = read_actions(flags)
    check_long_enough(actions, flags.action_horizon)
    dimensions = choose_dimensions(flags, actions)
    if scales_relative(flags):
        actions = _with_relative_stats(actions, flags)
    mode = NormalizationMode(flags.normalization_mode)
    chunks = Chunks(actions, dimensions, flags.action_horizon, mode)
    return TrainingData(flags, actions, dimensions, chunks)


def _with_relative_stats(actions: Actions, flags: TokenizerFlags) -> Actions:
    """Return the actions with the statistics that a policy of relative actions has."""
    assert actions.states is not None
    dims, horizon = flags.relative_dim_list(), flags.action_horizon
    stats = relative_action_stats(
        actions.values, actions.states, actions.read_bounds, dims, horizon
    )
    stats.pop("count")
    return replace(actions, stats=stats)
