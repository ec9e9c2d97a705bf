# SPDX-License-Identifier: Apache-2.0
"""pi0-FAST's pipelines as LeRobot builds them, and which settings their steps take."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vlakit.policies.pi0_fast.config import PI0FastConfig
from vlakit.policies.pi0_fast.processor_actions import (
    ACTION_TOKENIZER_FOLDER,
    ActionTokens,
    fast_tokenizer_folder,
    load_fast_tokenizer,
)
from vlakit.policies.pi0_fast.processor_text import (
    TOKENIZER_FOLDER,
    PromptTokens,
    tokenizer_folder,
)
from vlakit.policies.pi0_fast.prompt import Prompt
from vlakit.policies.processors import Overrides, StepSettings
from vlakit.processing.batch import ToBatch, ToDevice
from vlakit.processing.normalize import Normalizer, Stats, Unnormalizer
from vlakit.processing.pipeline import POSTPROCESSOR, PREPROCESSOR, Pipeline
from vlakit.processing.relative_actions import AbsoluteActions, RelativeActions
from vlakit.processing.rename import RenameObservations, rename_keys
from vlakit.processing.text import copy_tokenizer

_PROMPT = Prompt.registry_name
_TEXT = PromptTokens.registry_name
_ACTIONS = ActionTokens.registry_name
_RELATIVE = RelativeActions.registry_name

_FIELDS: dict[str, tuple[tuple[str, str], ...]] = {
    "tokenizer_max_length": ((_TEXT, "max_length"),),
    "text_tokenizer_name": ((_TEXT, "tokenizer_name"), (_ACTIONS, "paligemma_tokenizer_name")),
    "max_action_tokens": ((_ACTIONS, "max_action_tokens"),),
    "action_tokenizer_name": ((_ACTIONS, "action_tokenizer_name"),),
    "fast_skip_tokens": ((_ACTIONS, "fast_skip_tokens"),),
    "use_relative_actions": ((_RELATIVE, "enabled"),),
    "relative_exclude_joints": ((_RELATIVE, "exclude_joints"),),
    "action_feature_names": ((_RELATIVE, "action_names"),),
}
"""Field of the policy -> the steps of the preprocessor that keep it, and under which name."""

_NOT_IN_THE_FILE: dict[str, tuple[tuple[str, str], ...]] = {
    "token_layout": ((_PROMPT, "token_layout"), (_ACTIONS, "token_layout")),
    "allow_truncation": ((_TEXT, "allow_truncation"), (_ACTIONS, "allow_truncation")),
    "chunk_size": ((_ACTIONS, "chunk_size"),),
}
"""The same for what LeRobot's file has no key for: `config.json` alone decides."""


def step_settings(config: PI0FastConfig, changed: Collection[str]) -> StepSettings:
    """Return what the steps of a stored pipeline take from the policy's settings.

    LeRobot 0.6.1 forgets `fast_skip_tokens` and the text tokenizer's name of the action step; both
    come from `config.json` then.
    """
    preprocess: Overrides = {}
    _take(config, _NOT_IN_THE_FILE, preprocess)
    _take(config, {name: _FIELDS[name] for name in _FIELDS if name in changed}, preprocess)
    postprocess: Overrides = {}
    if "use_relative_actions" in changed:
        postprocess[AbsoluteActions.registry_name] = {"enabled": config.use_relative_actions}
    absent: Overrides = {}
    _take(config, _FIELDS, absent)
    return StepSettings(preprocess, postprocess, absent)


def _take(
    config: PI0FastConfig,
    fields: Mapping[str, tuple[tuple[str, str], ...]],
    target: dict[str, dict[str, Any]],
) -> None:
    for field, places in fields.items():
        for step, key in places:
            target.setdefault(step, {})[key] = getattr(config, field)


def save_tokenizer(config: PI0FastConfig, folder: Path) -> None:
    """Write the tokenizers of a policy that has no processors into its checkpoint.

    Raises:
        CheckpointError: one is not on this machine.
    """
    text = tokenizer_folder(config.text_tokenizer_name, local_only=True)
    copy_tokenizer(text, folder / TOKENIZER_FOLDER)
    actions = fast_tokenizer_folder(config.action_tokenizer_name, local_only=True)
    load_fast_tokenizer(actions).save_pretrained(folder / ACTION_TOKENIZER_FOLDER)


def make_processors(
    config: PI0FastConfig,
    stats: Stats | None,
    *,
    rename_map: Mapping[str, str] | None = None,
    checkpoint: Path | None = None,
    changed: Collection[str] = (),
) -> tuple[Pipeline, Pipeline]:
    """Return the preprocessor and the postprocessor of a new policy, as LeRobot builds them.

    Args:
        config: the policy's settings, features included.
        stats: statistics of the dataset by feature, under the dataset's names; those of the action
            are of relative actions where the policy's are.
        rename_map: names of the dataset to those of the policy.
        checkpoint: folder whose stored tokenizers, if it has some, are taken.
        changed: settings that are not the checkpoint's; tokenizers named by them are not taken.

    Raises:
        ProcessingError: a feature that is scaled lacks a statistic.
        CheckpointError: a tokenizer is missing, or the two do not fit each other.
    """
    stats = rename_keys(stats or {}, rename_map or {})
    scaling = {"norm_map": config.normalization_mapping, "stats": stats}
    features = {**config.input_features, **config.output_features}
    settings = step_settings(config, _FIELDS)
    relative = RelativeActions(**settings.preprocess[_RELATIVE])
    preprocess = Pipeline(
        [
            RenameObservations(rename_map),
            ToBatch(),
            relative,
            Normalizer(features, **scaling),
            Prompt(config.max_state_dim, **settings.preprocess[_PROMPT]),
            PromptTokens(**settings.preprocess[_TEXT]),
            ActionTokens(**settings.preprocess[_ACTIONS]),
            ToDevice(config.device or "cpu"),
        ],
        PREPROCESSOR,
    )
    if checkpoint is not None:
        overridden = {key for name in changed for _, key in _FIELDS.get(name, ())}
        for step in preprocess.steps:
            step.load_assets(checkpoint, artifacts={}, overridden=overridden)
    postprocess = Pipeline(
        [
            Unnormalizer(config.output_features, **scaling),
            AbsoluteActions(config.use_relative_actions),
            ToDevice("cpu"),
        ],
        POSTPROCESSOR,
    )
    postprocess.link(preprocess)
    for pipeline in (preprocess, postprocess):
        pipeline.check(config.to_json())
    return preprocess, postprocess
