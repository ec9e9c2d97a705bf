# SPDX-License-Identifier: Apache-2.0
"""One episode of a scripted expert, with noise that teaches a policy to recover."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlakit.environments.base import Environment
from vlakit.features import ACTION

NOISE_STREAM = 1
"""Second word of the noise generator's seed, so that it differs from the goal's."""


class ExpertEpisode(NamedTuple):
    """What an expert saw and did."""

    seed: int
    success: bool
    num_steps: int
    frames: dict[str, NDArray[Any]]
    """`observation.*` and `action`, each (num_steps, ...); empty after a failure."""


def record_expert_episode(
    env: Environment, seed: int, *, noise: float, frames_after_success: int
) -> ExpertEpisode:
    """Let the expert act from a seed's start until it succeeds or the step limit is reached.

    Recorded is the expert's own action, clipped to the box. Executed is that action with Gaussian
    noise on its first three numbers (the gripper's way), so the expert keeps showing how to come
    back from where it did not mean to be.

    Args:
        env: Any environment with an expert.
        seed: Chooses the episode and its noise.
        noise: Standard deviation of the noise, in units of the action.
        frames_after_success: Steps that go on after the first success: a policy sees what done
            looks like. Success is what counts, whatever they do.
    """
    generator = np.random.default_rng([seed, NOISE_STREAM])
    env.reset(seed)
    rows: list[dict[str, NDArray[Any]]] = []
    success_step: int | None = None
    while len(rows) < env.max_steps:
        if success_step is not None and len(rows) > success_step + frames_after_success:
            break
        action = env.expert_action()
        rows.append({**env.observe(), ACTION: action})
        executed = action.copy()
        executed[:3] += generator.normal(0.0, noise, 3).astype(np.float32) if noise else 0
        result = env.step(executed)
        if result.success and success_step is None:
            success_step = len(rows) - 1
    if success_step is None:
        return ExpertEpisode(seed, False, len(rows), {})
    frames = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return ExpertEpisode(seed, True, len(rows), frames)


def with_noise(actions: NDArray[np.float32], seed: int, noise: float) -> NDArray[np.float32]:
    """Return what was executed where these actions of an expert were recorded.

    Args:
        actions: (steps, action_dim), as recorded from the first step on.
        seed: Of the episode.
        noise: Standard deviation, as given to `record_expert_episode`.
    """
    executed = actions.copy()
    if noise:
        generator = np.random.default_rng([seed, NOISE_STREAM])
        executed[:, :3] += generator.normal(0.0, noise, (len(actions), 3)).astype(np.float32)
    return executed
