# SPDX-License-Identifier: Apache-2.0
"""What a run would find out too late, looked at on a sample of its data before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlakit.errors import ConfigError, ProcessingError
from vlakit.features import ACTION, ACTION_TOKEN_MASK, OBS_STATE, NormalizationMode
from vlakit.policies.pi0_fast.config import PI0FastConfig
from vlakit.policies.pi0_fast.processor_actions import ActionTokens
from vlakit.policies.pi0_fast.prompt import Prompt
from vlakit.processing.batch import ToDevice
from vlakit.processing.fast.normalizer import FastNormalizer
from vlakit.processing.fast.tokenizer import FastTokenizer
from vlakit.processing.normalize import Normalizer
from vlakit.processing.pipeline import Pipeline
from vlakit.processing.relative_actions import relative_dims

MOST_CLIPPED = 0.05
"""Share of state values outside [-1, 1] that needs no word: quantiles leave 2 % outside."""
MOST_LOSSES = 0.01
"""Share of chunks that a FAST tokenizer may be unable to spell."""


def check_data(config: PI0FastConfig, preprocess: Pipeline, sample: Mapping[str, Any]) -> list[str]:
    """Run a sample of a dataset through the preprocessor.

    Args:
        config: the policy's settings.
        preprocess: of the policy.
        sample: a raw batch without pictures.

    Returns:
        What the user should know.

    Raises:
        ConfigError: the FAST tokenizer was made for other chunks, or cannot spell these.
        ProcessingError: prompts are too long.
    """
    step = preprocess.find(ActionTokens.registry_name)
    normalizer = preprocess.find(Normalizer.registry_name)
    assert isinstance(step, ActionTokens)
    assert isinstance(normalizer, Normalizer)
    notes = check_tokenizer(config, step.tokenizer, normalizer)
    batch: dict[str, Any] = dict(sample)
    for stage in preprocess.steps:
        if isinstance(stage, Prompt):
            notes += clipped_state(batch[OBS_STATE], normalizer)
        elif stage is step:
            notes += check_spelling(config, step, batch[ACTION])
        if not isinstance(stage, ToDevice):
            batch = stage(batch)
    longest = int(batch[ACTION_TOKEN_MASK].sum(dim=1).max())
    if longest > config.max_decoding_steps:
        notes.append(
            f"chunks of this dataset take up to {longest} tokens, more than "
            f"--policy.max_decoding_steps={config.max_decoding_steps}: they cannot be predicted "
            "whole. Raise it."
        )
    return notes


def check_tokenizer(
    config: PI0FastConfig, tokenizer: FastTokenizer, normalizer: Normalizer
) -> list[str]:
    """Compare what a FAST tokenizer was fitted on with what it is to encode.

    Raises:
        ConfigError: they differ.
    """
    pairs = (
        ("chunks of", tokenizer.horizon, "actions", "chunk_size", config.chunk_size),
        ("actions of", tokenizer.action_dim, "dimensions", None, config.action_dim),
    )
    name = f"--policy.action_tokenizer_name={config.action_tokenizer_name}"
    for what, theirs, unit, flag, ours in pairs:
        if theirs is not None and theirs != ours:
            has = f"--policy.{flag}={ours}" if flag else f"the policy's have {ours}"
            remedy = f"Give --policy.{flag}={theirs}, or train" if flag else "Train"
            raise ConfigError(
                f"{name} was fitted on {what} {theirs} {unit}, but {has}. {remedy} a tokenizer on "
                "this dataset with vlakit train-tokenizer."
            )
    fitted = tokenizer.normalizer
    if fitted is None:
        return []
    ours = _normalizer_of(config, normalizer)
    difference = fitted.difference(replace(ours, stats=fitted.stats))
    if difference is None and (difference := fitted.difference(ours)) and fitted.relative_dims:
        # LeRobot scales relative chunks by statistics of absolute actions when it fits.
        return [
            f"{name} was fitted on relative actions under other statistics ({difference}): it "
            "encodes these too, perhaps in more tokens."
        ]
    if difference is not None:
        raise ConfigError(
            f"{name} was fitted on other numbers than the policy encodes: {difference}. Train a "
            "tokenizer on this dataset with the policy's normalisation (vlakit train-tokenizer "
            f"--normalization_mode={ours.mode.value}), or give the policy the tokenizer's "
            f'(\'{{"ACTION": "{fitted.mode.value}", ...}}\' in --policy.normalization_mapping).'
        )
    return []


def _normalizer_of(config: PI0FastConfig, normalizer: Normalizer) -> FastNormalizer:
    dims: list[int] = []
    if config.use_relative_actions:
        excluded, names = config.relative_exclude_joints, config.action_feature_names
        dims = relative_dims(config.action_dim, excluded, names)
    stats = normalizer.stats.get(ACTION, {})
    return FastNormalizer(
        mode=normalizer.mode_of(ACTION),
        encoded_dims=[(0, config.action_dim)],
        relative_dims=dims,
        stats={name: value.flatten().tolist() for name, value in stats.items()},
    )


def clipped_state(state: torch.Tensor, normalizer: Normalizer) -> list[str]:
    """Return a warning when the scaled state often lies outside the bins of the prompt."""
    share = float((state.abs() > 1).float().mean())
    if share <= MOST_CLIPPED:
        return []
    mode = normalizer.mode_of(OBS_STATE)
    remedy = (
        "Give --policy.normalization_mapping='"
        '{"STATE": "QUANTILES", "ACTION": "QUANTILES", "VISUAL": "IDENTITY"}\'.'
        if mode in (NormalizationMode.IDENTITY, NormalizationMode.MEAN_STD)
        else "The statistics do not describe this data, as in datasets that LeRobot wrote: compute "
        "them anew with vlakit.datasets.stats.write_stats(dataset)."
    )
    return [
        f"{share:.0%} of the state's values lie outside [-1, 1] after {mode.value} and share the "
        f"outer two of the prompt's 256 bins: pi0-FAST hardly sees them. {remedy}"
    ]


def check_spelling(config: PI0FastConfig, step: ActionTokens, action: torch.Tensor) -> list[str]:
    """Count the chunks that the tokenizer cannot spell without a loss.

    Raises:
        ConfigError: there are many.
    """
    chunks = action.float().numpy()
    losses = unspellable(step.tokenizer, chunks)
    if not losses:
        return []
    message = (
        f"{len(losses)} of {len(chunks)} sampled chunks of this dataset cannot be encoded by "
        f"--policy.action_tokenizer_name={config.action_tokenizer_name} without a loss "
        f"({next(iter(losses.values()))})"
    )
    if len(losses) > MOST_LOSSES * len(chunks):
        raise ConfigError(
            f"{message} Train a tokenizer on this dataset with vlakit train-tokenizer."
        )
    return [f"{message} What is lost is cut, as in LeRobot."]


def unspellable(tokenizer: FastTokenizer, chunks: NDArray[np.float32]) -> dict[int, str]:
    """Return the rows that a tokenizer refuses, with its reasons."""
    try:
        tokenizer.encode(chunks)
    except ProcessingError:
        pass
    else:
        return {}
    reasons = {}
    for row, chunk in enumerate(chunks):
        try:
            tokenizer.encode(chunk[None])
        except ProcessingError as error:
            reasons[row] = str(error)
    return reasons
