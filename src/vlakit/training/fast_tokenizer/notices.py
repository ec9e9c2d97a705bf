# SPDX-License-Identifier: Apache-2.0
"""What a user should know before a tokenizer is used: whatever was chosen or found unasked."""

from __future__ import annotations

from vlakit.features import NormalizationMode
from vlakit.processing.fast.tokenizer import FastTokenizer
from vlakit.training.fast_tokenizer.actions import Actions
from vlakit.training.fast_tokenizer.data import TrainingData
from vlakit.training.fast_tokenizer.dimensions import Dimensions
from vlakit.training.fast_tokenizer.report import Measured

USUALLY_CLIPPED = {NormalizationMode.QUANTILES: 0.02, NormalizationMode.QUANTILE10: 0.2}
MUCH = 3
"""From this many times the usual share on, the statistics are probably wrong."""


def data_notices(data: TrainingData) -> list[str]:
    """Return what a user should know of the training chunks."""
    found = []
    if data.flags.encoded_dims is None:
        found.append(
            f"--encoded_dims is not given: all {data.actions.dim} dimensions of the action are "
            f"encoded ({data.actions.labels()})."
        )
    if notice := _left_out_notice(data.dimensions, data.actions):
        found.append(notice)
    if data.actions.quantiles_are_computed:
        found.append("the dataset has no quantiles: they are computed from its actions.")
    if data.chunks.near_constant:
        dims = [data.dimensions.encoded[place] for place in data.chunks.near_constant]
        found.append(
            f"hardly moving: {', '.join(map(data.actions.label, dims))}; scaled by a floored "
            "range, as the policy does."
        )
    if notice := _clipping_notice(data):
        found.append(notice)
    if data.chunks.num_skipped:
        found.append(
            f"{data.chunks.num_skipped} of {len(data.actions.episodes)} episodes are shorter than "
            f"--action_horizon={data.flags.action_horizon} and give no training chunk."
        )
    return found


def _left_out_notice(dimensions: Dimensions, actions: Actions) -> str | None:
    """Return what it means that the chunk is not the whole action in its order, None if it is."""
    if dimensions.is_whole(actions.dim):
        return None
    missing = sorted(set(range(actions.dim)) - set(dimensions.encoded))
    what = f"not encoded: {', '.join(map(actions.label, missing))}" if missing else "another order"
    return (
        f"--encoded_dims={dimensions.text} is not the whole action of {actions.repo_id} ({what}). "
        "pi0-FAST encodes all dimensions in their order, so `vlakit train` will refuse this "
        f"tokenizer; --encoded_dims=0:{actions.dim} is all of them."
    )


def _clipping_notice(data: TrainingData) -> str | None:
    """Return which dimensions lie outside their quantiles far more often than they should."""
    usual = USUALLY_CLIPPED.get(data.chunks.mode, 1.0)
    dims, shares = data.dimensions.encoded, data.clipped_share
    often = [place for place in range(len(dims)) if shares[place] > MUCH * usual]
    if not often:
        return None
    named = ", ".join(f"{data.actions.label(dims[place])} {shares[place]:.0%}" for place in often)
    why = (
        "they are those of absolute actions, while these are relative"
        if data.dimensions.relative and data.flags.reference
        else "they are no quantiles of this data, as in datasets that LeRobot wrote: compute them "
        "anew with vlakit.datasets.stats.write_stats(dataset)"
    )
    return (
        f"outside the quantiles of the dataset's statistics, where about {usual:.0%} of an action "
        f"should be: {named}. Perhaps {why}."
    )


def tokenizer_notices(
    data: TrainingData, tokenizer: FastTokenizer, measured: Measured
) -> list[str]:
    """Return what a user should know of the fitted tokenizer."""
    found = []
    if tokenizer.vocab_size < data.flags.vocab_size:
        more = " Give a larger --sample_fraction." if data.flags.sample_fraction < 1 else ""
        found.append(
            f"the {len(data.training):,} training chunks repeat too little for more than "
            f"{tokenizer.vocab_size} of the --vocab_size={data.flags.vocab_size} asked for.{more}"
        )
    if measured.saturated_chunks:
        found.append(
            f"{measured.saturated_chunks:.2%} of the dataset's chunks have a coefficient below "
            f"{tokenizer.min_token}, the lowest of the sample (they reach "
            f"{measured.lowest_coefficient}), which encoding loses. Fit without --reference."
        )
    return found
