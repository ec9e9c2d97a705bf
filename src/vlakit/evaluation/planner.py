# SPDX-License-Identifier: Apache-2.0
"""A policy and its processors as the planner of rollouts, and whether they fit a simulator."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from vlakit.environments.base import EnvConfig
from vlakit.errors import ConfigError, did_you_mean
from vlakit.evaluation.config import EvalConfig
from vlakit.evaluation.planning import EpisodeMemory, Plan, Undecodable
from vlakit.evaluation.results import EvaluationResult
from vlakit.evaluation.rollout import evaluate
from vlakit.features import ACTION, OBS_STATE, TASK, PolicyFeature, policy_features
from vlakit.policies.base import Policy
from vlakit.policies.config import PolicyConfig
from vlakit.policies.processors import load_processors
from vlakit.policies.registry import make_policy
from vlakit.processing.batch import is_camera
from vlakit.processing.rename import check_cameras, rename_keys


class Processor(Protocol):
    """A pipeline: batch in, batch out; actions in, actions out."""

    def __call__(self, raw: Any) -> Any: ...


class PolicyPlanner:
    """Plans chunks with a policy: one batch for all waiting episodes, noise from each one's own.

    Args:
        policy: Its `config.n_action_steps` is how much of a chunk is executed.
        preprocess: Raw batch -> what the policy takes.
        postprocess: Normalised actions -> the robot's units.
    """

    def __init__(self, policy: Policy, preprocess: Processor, postprocess: Processor) -> None:
        self._policy, self._preprocess, self._postprocess = policy, preprocess, postprocess
        self._num_steps = int(getattr(policy.config, "n_action_steps"))  # noqa: B009 (per policy)

    @property
    def device(self) -> str:
        """Where the policy computes."""
        return str(self._policy.device)

    @property
    def preparation_s(self) -> float:
        """Seconds that recordings took so far; see `Planner`."""
        return self._policy.recording_s

    def plan(
        self, observations: Sequence[Mapping[str, NDArray[Any]]], memories: Sequence[EpisodeMemory]
    ) -> list[Plan]:
        """Return one chunk (n_action_steps, action_dim) per episode; see `Planner`."""
        raw = stack_observations(observations) | {TASK: [memory.instruction for memory in memories]}
        with torch.inference_mode():
            batch = self._preprocess(raw)
            generators = [memory.generator for memory in memories]
            noise = self._policy.make_noise(len(memories), generators)
            actions, failures = self._policy.try_action_chunk(batch, noise=noise)
            real = self._postprocess(actions[:, : self._num_steps])
        chunks: list[Plan] = list(real.float().cpu().numpy())  # each (n_action_steps, action_dim)
        for row, reason in failures.items():
            chunks[row] = Undecodable(reason, self._num_steps)
        return chunks


def load_planner(
    config: PolicyConfig, overrides: Mapping[str, Any], rename_map: Mapping[str, str]
) -> PolicyPlanner:
    """Load a checkpoint and its processors as a planner.

    Args:
        config: With `pretrained_path` and `device`.
        overrides: Settings of the policy given by flag; its processors get them too.
        rename_map: Names of the environment to the policy's.

    Raises:
        CheckpointError: A file is missing or damaged.
        DeviceError: This machine has no such device.
    """
    assert config.pretrained_path is not None
    policy = make_policy(config).eval()
    preprocess, postprocess = load_processors(
        config.pretrained_path,
        revision=config.pretrained_revision,
        device=str(policy.device),
        rename_map=rename_map or None,
        **overrides,
    )
    return PolicyPlanner(policy, preprocess, postprocess)


def stack_observations(observations: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Any]:
    """Return one batch: cameras uint8 (batch, 3, height, width), vectors float32 (batch, n)."""
    batch: dict[str, Any] = {}
    for name in observations[0]:
        rows = torch.from_numpy(np.stack([observation[name] for observation in observations]))
        batch[name] = rows.permute(0, 3, 1, 2) if is_camera(name) else rows
    return batch


def evaluate_policy(
    policy: Policy,
    preprocess: Processor,
    postprocess: Processor,
    env_config: EnvConfig,
    eval_config: EvalConfig,
    *,
    seed: int,
    output_dir: Path | None = None,
    console: Console | None = None,
) -> EvaluationResult:
    """Roll a policy out that is being trained, and fits (`check_fit`).

    Its mode and torch's global generator stay as they were.

    Args:
        policy: Switched to evaluation mode, and back.
        preprocess: Of the policy; renames observations itself.
        postprocess: Of the policy.
        env_config: Simulator and tasks.
        eval_config: How many rollouts, and controls.
        seed: First seed.
        output_dir: Where `episodes.jsonl`, videos and traces go; None writes nothing.
        console: Where progress is shown; None is stderr.

    Raises:
        SimulatorError: A simulator cannot run.
    """
    was_training = policy.training
    policy.eval()
    try:
        return evaluate(
            PolicyPlanner(policy, preprocess, postprocess),
            env_config,
            eval_config,
            seed=seed,
            output_dir=output_dir,
            console=console,
        )
    finally:
        policy.train(was_training)


def check_fit(config: PolicyConfig, env: EnvConfig, rename_map: Mapping[str, str]) -> list[str]:
    """Make sure that an environment gives what a policy reads and takes what it returns.

    Returns:
        Differences that do not stop a run, such as another picture size.

    Raises:
        ProcessingError: A camera is missing; the message has the closest `--rename_map`.
        ConfigError: State or action have another number of dimensions.
    """
    given = policy_features(env.features())
    observed = _renamed(given, rename_map)
    cameras = [name for name in config.image_features if name not in config.optional_inputs]
    if any(name not in observed for name in cameras):
        giver = f"the environment (--env.type={env.type})"
        check_cameras(given, cameras, giver=giver)
        raise ConfigError(
            f"--rename_map={json.dumps(dict(rename_map))} takes away cameras that the checkpoint "
            f"needs, {cameras}: leave it out, the names fit without it."
        )
    for name, wanted, found in (
        (OBS_STATE, config.state_feature, observed.get(OBS_STATE)),
        (ACTION, config.action_feature, given.get(ACTION)),
    ):
        _check_vector(name, wanted, found, env)
    notes = []
    for name, wanted in config.image_features.items():
        if name in observed and observed[name].shape != wanted.shape:
            notes.append(_size_note(name, wanted.shape, observed[name].shape))
    return notes


def _renamed(
    given: Mapping[str, PolicyFeature], rename_map: Mapping[str, str]
) -> dict[str, PolicyFeature]:
    observations = {name: feature for name, feature in given.items() if name != ACTION}
    for name in rename_map:
        if name not in observations:
            raise ConfigError(
                f"--rename_map has {name!r}, but the environment gives {list(observations)}: give "
                f"names of the environment on the left.{did_you_mean(name, observations)}"
            )
    return rename_keys(observations, rename_map)


def _check_vector(
    name: str, wanted: PolicyFeature | None, found: PolicyFeature | None, env: EnvConfig
) -> None:
    if wanted is None or (found is not None and found.shape == wanted.shape):
        return
    has = "none" if found is None else f"{found.shape[0]} dimensions"
    raise ConfigError(
        f"the checkpoint was made for {name} with {wanted.shape[0]} dimensions, but --env.type="
        f"{env.type} has {has}: choose the environment that it was trained for."
    )


def _size_note(name: str, wanted: tuple[int, ...], found: tuple[int, ...]) -> str:
    return (
        f"{name} is {found[1]}x{found[2]} here, but the checkpoint saw {wanted[1]}x{wanted[2]}: "
        f"pass --env.observation_height={wanted[1]} --env.observation_width={wanted[2]} (and "
        "its crop) for what it was trained on."
    )
