# SPDX-License-Identifier: Apache-2.0
"""The processors of a saved policy: its pipelines, with settings changed on request."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from vlakit.checkpoints.pretrained import read_config
from vlakit.errors import CheckpointError, ConfigError, did_you_mean
from vlakit.hub import resolve
from vlakit.policies.config import POLICIES, PolicyConfig
from vlakit.policies.stored_config import read_policy_config
from vlakit.processing.normalize import Stats
from vlakit.processing.pipeline import POSTPROCESSOR, PREPROCESSOR, Pipeline
from vlakit.processing.rename import rename_keys

logger = logging.getLogger(__name__)

Overrides = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class StepSettings:
    """What the steps of a stored pipeline take from the policy's settings, by registry name.

    A policy's `processor.step_settings(config, changed)` returns it.
    """

    preprocess: Overrides
    """Put over what the preprocessor's file says."""
    postprocess: Overrides = field(default_factory=dict)
    """Put over what the postprocessor's file says."""
    absent: Overrides = field(default_factory=dict)
    """For the preprocessor where its file says nothing."""


def load_processors(
    path_or_repo_id: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    device: str | None = None,
    stats: Stats | None = None,
    rename_map: Mapping[str, str] | None = None,
    **overrides: Any,
) -> tuple[Pipeline, Pipeline]:
    """Return the preprocessor and the postprocessor that belong to a checkpoint.

    Args:
        path_or_repo_id: folder or hub id.
        revision: branch, tag or commit on the hub.
        token: access token of the hub.
        device: where the preprocessor delivers; the one in the checkpoint by default.
        stats: statistics that replace the stored ones, under the dataset's names.
        rename_map: names of the dataset or environment to the checkpoint's.
        overrides: fields of the policy's configuration, such as `vlm_base` or `chunk_size`; those
            that concern the policy alone are accepted and have no effect here.

    Raises:
        ConfigError: an override is no field of the configuration.
        CheckpointError: a file is missing or damaged, or there are no pipelines and no `stats`.
        ProcessingError: statistics are missing.
    """
    folder = resolve(path_or_repo_id, revision=revision, token=token)
    config = _overridden(read_policy_config(folder), overrides)
    if any((folder / f"{name}.json").is_file() for name in (PREPROCESSOR, POSTPROCESSOR)):
        settings = _step_settings(config, overrides, stats, rename_map)
        if device is not None:
            settings.preprocess["device_processor"] = {"device": device}
        preprocess, postprocess = _stored_pipelines(folder, settings)
    else:
        config = config.override({"device": device or config.device})
        preprocess, postprocess = _from_config(config, folder, stats, rename_map, overrides)
    for pipeline in (preprocess, postprocess):
        pipeline.check(read_config(folder))
    return preprocess, postprocess


@dataclass(frozen=True)
class Origin:
    """The checkpoint that a policy was loaded from."""

    folder: Path
    changes: Mapping[str, Any]
    """Settings in which the policy differs from the stored ones."""


def save_companions(config: PolicyConfig, origin: Origin | None, folder: Path) -> None:
    """Write what a policy's checkpoint holds besides settings and weights.

    That is the tokenizer and, where the policy comes from a checkpoint with processors, those, with
    the settings that were changed since. What is not on this machine is logged and left out:
    weights must not be lost for want of a tokenizer.

    Raises:
        CheckpointError: the processors of the origin are damaged.
    """
    if origin is None or not (origin.folder / f"{PREPROCESSOR}.json").is_file():
        package, _ = POLICIES[config.type]
        save_tokenizer = import_module(f"{package}.processor").save_tokenizer
        writers = [partial(save_tokenizer, config, folder)]
    else:
        settings = _step_settings(config, origin.changes, stats=None, rename_map=None)
        pipelines = _stored_pipelines(origin.folder, settings)
        writers = [partial(pipeline.save, folder) for pipeline in pipelines]
    for write in writers:
        try:
            write()
        except CheckpointError as error:
            logger.warning("the checkpoint in %s lacks its tokenizer: %s", folder, error)


def _stored_pipelines(folder: Path, settings: StepSettings) -> tuple[Pipeline, Pipeline]:
    preprocess = Pipeline.load(folder, f"{PREPROCESSOR}.json", settings.preprocess, settings.absent)
    postprocess = Pipeline.load(folder, f"{POSTPROCESSOR}.json", settings.postprocess)
    postprocess.link(preprocess)
    return preprocess, postprocess


def _overridden(config: PolicyConfig, overrides: Mapping[str, Any]) -> PolicyConfig:
    names = {field.name for field in dataclasses.fields(config)}
    for name in overrides:
        if name not in names:
            raise ConfigError(
                f"{name}={overrides[name]!r} is no setting of a {config.type} policy; its settings "
                f"are the fields of {type(config).__name__}.{did_you_mean(name, names)}"
            )
    return config.override(overrides)


def _from_config(
    config: PolicyConfig,
    folder: Path,
    stats: Stats | None,
    rename_map: Mapping[str, str] | None,
    overrides: Mapping[str, Any],
) -> tuple[Pipeline, Pipeline]:
    if stats is None:
        raise CheckpointError(
            f"{folder} has no {PREPROCESSOR}.json, so it holds no statistics to scale states and "
            "actions with. Pass stats=dataset.meta.stats of the dataset that the robot was "
            "recorded with."
        )
    package, _ = POLICIES[config.type]
    make = import_module(f"{package}.processor").make_processors
    return make(config, stats, rename_map=rename_map, checkpoint=folder, changed=overrides.keys())


def _step_settings(
    config: PolicyConfig,
    overrides: Mapping[str, Any],
    stats: Stats | None,
    rename_map: Mapping[str, str] | None,
) -> StepSettings:
    """Return what to change in which step of which pipeline: the policy's part and the common."""
    package, _ = POLICIES[config.type]
    settings: StepSettings = import_module(f"{package}.processor").step_settings(
        config, overrides.keys()
    )
    scaling: dict[str, Any] = {}
    if rename_map is not None:
        settings.preprocess["rename_observations_processor"] = {"rename_map": dict(rename_map)}
    if stats is not None:
        scaling["stats"] = rename_keys(stats, rename_map or {})
    if "normalization_mapping" in overrides:
        scaling["norm_map"] = getattr(config, "normalization_mapping")  # noqa: B009  policy's own
    after_scaling = dict(scaling)
    if {"input_features", "output_features"} & set(overrides):
        scaling["features"] = {**config.input_features, **config.output_features}
        after_scaling["features"] = config.output_features
    if scaling:
        settings.preprocess["normalizer_processor"] = scaling
    if after_scaling:
        settings.postprocess["unnormalizer_processor"] = after_scaling
    return settings
