# SPDX-License-Identifier: Apache-2.0
"""Everything a run is built from, each by a function that returns it. Nothing here writes files."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vlakit.datasets.action_window import chunk_delta_timestamps, window_rows
from vlakit.datasets.location import locate
from vlakit.datasets.metadata import DatasetMetadata
from vlakit.datasets.reader import LeRobotDataset
from vlakit.datasets.reading.versions import load_metadata
from vlakit.datasets.reading.video_check import check_videos
from vlakit.datasets.sampler import split_episodes
from vlakit.errors import ConfigError, DatasetError, did_you_mean
from vlakit.features import (
    ACTION,
    OBS_STATE,
    TASK,
    FeatureType,
    PolicyFeature,
    feature_type,
    policy_features,
)
from vlakit.policies.config import PolicyConfig
from vlakit.policies.processors import load_processors
from vlakit.policies.registry import check_data as check_policy_data
from vlakit.policies.registry import make_processors
from vlakit.policies.stored_config import read_policy_config
from vlakit.processing.pipeline import Pipeline
from vlakit.processing.relative_actions import relative_dims
from vlakit.processing.rename import closest_rename_map, rename_keys
from vlakit.training.config import TrainFlags
from vlakit.training.relative_stats import relative_action_stats

IMAGENET_STATS = {
    "mean": np.array([0.485, 0.456, 0.406], dtype=np.float32).reshape(3, 1, 1),
    "std": np.array([0.229, 0.224, 0.225], dtype=np.float32).reshape(3, 1, 1),
}
SAMPLED = 4096
"""Frames that are looked at before a run."""
Stats = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class TrainingData:
    """The datasets of a run, and what policy and processors have to know about them."""

    train: LeRobotDataset
    held_out: LeRobotDataset | None
    features: dict[str, PolicyFeature]
    """Under the policy's names."""
    stats: Stats
    """Under the dataset's names."""


def seed_everything(seed: int | None) -> int:
    """Seed Python, numpy and torch; returns the seed, drawn when None was given."""
    if seed is None:
        seed = random.SystemRandom().randrange(2**31)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return seed


def open_data(flags: TrainFlags, chunk_size: int) -> TrainingData:
    """Open the dataset, hold out episodes, and gather features and statistics.

    Args:
        flags: `dataset`, `rename_map`, `tolerance_s`.
        chunk_size: Actions per sample, from the frame's own on.
    """
    settings = flags.dataset
    location = locate(settings.repo_id, settings.root, settings.revision, None)
    meta = load_metadata(settings.repo_id, location.root)
    check_rename_map(flags.rename_map, meta.features)
    chosen, held_out = held_out_split(meta, settings.episodes, settings.eval_split)

    def open_episodes(episodes: list[int] | None) -> LeRobotDataset:
        return LeRobotDataset(
            settings.repo_id,
            settings.root,
            episodes,
            {ACTION: chunk_delta_timestamps(chunk_size, meta.fps)},
            revision=settings.revision,
            tolerance_s=flags.tolerance_s,
            return_uint8=True,
            cache_frames=settings.cache_frames,
            frame_cache=settings.frame_cache,
            frame_cache_dir=settings.frame_cache_dir,
            frame_cache_workers=flags.num_workers,
            video_backend=settings.video_backend,
        )

    train = open_episodes(chosen)
    check_frames(train)
    return TrainingData(
        train,
        open_episodes(held_out) if held_out else None,
        rename_keys(policy_features(meta.features), flags.rename_map),
        training_stats(train.meta, flags),
    )


def check_frames(dataset: LeRobotDataset) -> None:
    """Look for what would stop a run hours later: numbers that are none, videos cut short.

    Raises:
        DatasetError: A state or action is not finite, or a video ends before its last episode.
    """
    meta, numeric = dataset.meta, dataset.frames.numeric
    for name, values in numeric.items():
        if feature_type(name, meta.features[name]["dtype"]) is None:
            continue
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            row = int(finite.argmin())
            episode, frame = (int(numeric[key][row]) for key in ("episode_index", "frame_index"))
            raise DatasetError(
                f"{meta.root / meta.episodes.data_paths[episode]}: {name!r} of episode {episode}, "
                f"frame {frame} is {values[row].tolist()} (and {int((~finite).sum()) - 1} frames "
                "more); expected numbers. Repair the episode, or leave it out with "
                "--dataset.episodes."
            )
    check_videos(meta, dataset.episodes)


def check_rename_map(rename_map: Mapping[str, str], features: Mapping[str, Any]) -> None:
    """Raise ConfigError when `rename_map` names a feature the dataset lacks."""
    for name in rename_map:
        if name not in features:
            raise ConfigError(
                f"--rename_map names {name!r}, which the dataset does not have; it has "
                f"{', '.join(features)}.{did_you_mean(name, features)}"
            )


def held_out_split(
    meta: DatasetMetadata, episodes: list[int] | None, eval_split: float
) -> tuple[list[int] | None, list[int]]:
    """Return the episodes to train on (None for all) and those held out.

    Raises:
        ConfigError: Nothing could be held out.
    """
    if eval_split == 0.0:
        return episodes, []
    chosen = episodes if episodes is not None else list(range(meta.total_episodes))
    train, held_out = split_episodes([meta.episodes.tasks[e] for e in chosen], eval_split)
    if not held_out:
        raise ConfigError(
            f"--dataset.eval_split={eval_split} holds nothing out: every task has one episode "
            "only; leave the flag out."
        )
    return [chosen[i] for i in train], [chosen[i] for i in held_out]


def training_stats(meta: DatasetMetadata, flags: TrainFlags) -> Stats:
    """Return the statistics of the dataset, those of cameras replaced when that is asked for."""
    stats = {name: dict(entry) for name, entry in meta.stats.items()}
    if flags.dataset.use_imagenet_stats:
        for camera in meta.camera_keys:
            replaced = {name: value.copy() for name, value in IMAGENET_STATS.items()}
            stats[camera] = stats.get(camera, {}) | replaced
    return stats


def fit_config(
    config: PolicyConfig, features: Mapping[str, PolicyFeature], device: torch.device
) -> PolicyConfig:
    """Return the policy's settings with the dataset's features and the device filled in.

    A new policy reads every observation of the dataset. A checkpoint keeps its own inputs, in their
    order; each must be in the dataset.

    Raises:
        ConfigError: A camera or the state is missing, or a vector is wider than the policy takes.
    """
    outputs = {k: f for k, f in features.items() if f.type is FeatureType.ACTION}
    inputs = {k: f for k, f in features.items() if f.type is not FeatureType.ACTION}
    if ACTION not in outputs:
        raise ConfigError(f"the dataset has no feature {ACTION!r}; it has {', '.join(features)}.")
    if config.input_features:
        check_inputs(config, inputs)
        inputs = {name: inputs[name] for name in config.input_features if name in inputs}
    return dataclasses.replace(
        config, input_features=inputs, output_features=outputs, device=str(device)
    )


def check_inputs(config: PolicyConfig, given: Mapping[str, PolicyFeature]) -> None:
    """Raise ConfigError when the dataset lacks an input of the policy, with the closest rename."""
    optional = config.optional_inputs
    missing = [name for name in config.input_features if name not in {*given, *optional}]
    if not missing:
        return
    kinds = {config.input_features[name].type for name in missing}
    spare = [name for name, feature in given.items() if feature.type in kinds]
    guess = closest_rename_map(spare, [n for n in config.input_features if n in missing])
    advice = (
        f"Give --rename_map='{json.dumps(guess)}'"
        if guess
        else "Choose another checkpoint, or record that observation"
    )
    raise ConfigError(
        f"the policy needs {', '.join(missing)}, which the dataset lacks; it has "
        f"{', '.join(given)}. {advice}."
    )


def with_action_names(config: PolicyConfig, features: Mapping[str, Any]) -> PolicyConfig:
    """Return the settings with the names of the action's dimensions, for policies that ask."""
    if vars(config).get("action_feature_names", ()) is not None:
        return config
    names = features[ACTION].get("names")
    if isinstance(names, Mapping) and len(names) == 1:  # older datasets group them
        names = next(iter(names.values()))
    if not isinstance(names, list) or len(names) != features[ACTION]["shape"][0]:
        return config
    return config.override({"action_feature_names": [str(name) for name in names]})


def with_relative_stats(
    config: PolicyConfig, data: TrainingData, rename_map: Mapping[str, str]
) -> TrainingData:
    """Return the data with statistics of relative actions, for policies that predict those."""
    settings = vars(config)
    if not settings.get("use_relative_actions"):
        return data
    numeric, bounds = data.train.frames.numeric, data.train.frames.episode_bounds
    state = next((name for name in numeric if rename_map.get(name, name) == OBS_STATE), None)
    if state is None:
        raise ConfigError(
            "--policy.use_relative_actions=true needs the state, which the dataset does not have; "
            f"it has {', '.join(numeric)}. Leave the flag out, or give --rename_map."
        )
    actions = numeric[ACTION]
    excluded, names = settings["relative_exclude_joints"], settings["action_feature_names"]
    dims = relative_dims(actions.shape[1], excluded, names)
    chunk_size = settings["chunk_size"]
    stats = relative_action_stats(actions, numeric[state], bounds, dims, chunk_size)
    return dataclasses.replace(data, stats=data.stats | {ACTION: stats})


def check_data(
    config: PolicyConfig, dataset: LeRobotDataset, preprocess: Pipeline, chunk_size: int
) -> list[str]:
    """Let the policy look at the states, actions and tasks of up to `SAMPLED` frames.

    Returns:
        What the user should know before the run starts.

    Raises:
        VlakitError: The run could not work.
    """
    frames = dataset.frames
    rows = np.unique(np.linspace(0, len(frames) - 1, SAMPLED).astype(np.int64))
    starts, ends = (bounds[frames.position[rows]] for bounds in frames.episode_bounds)
    window, _ = window_rows(rows, starts, ends, np.arange(chunk_size))
    sample: dict[str, Any] = {
        name: torch.from_numpy(values[window if name == ACTION else rows])
        for name, values in frames.numeric.items()
    }
    sample[TASK] = [dataset.meta.tasks[task] for task in frames.numeric["task_index"][rows]]
    return check_policy_data(config, preprocess, sample)


def processors_for(
    config: PolicyConfig, stats: Stats, rename_map: Mapping[str, str], *, resume: bool
) -> tuple[Pipeline, Pipeline]:
    """Return preprocessor and postprocessor: a checkpoint's own, or new ones.

    A checkpoint's take the statistics of this dataset, unless its run is resumed, and every setting
    that differs from the checkpoint's: none is dropped in silence.

    Raises:
        VlakitError: Statistics, files or settings are missing or do not fit.
    """
    if config.pretrained_path is None:
        return make_processors(config, stats, rename_map=rename_map)
    stored = read_policy_config(config.pretrained_path, revision=config.pretrained_revision)
    return load_processors(
        config.pretrained_path,
        revision=config.pretrained_revision,
        device=config.device,
        stats=None if resume else stats,
        rename_map=rename_map or None,
        **config.changes_from(stored),
    )
