# SPDX-License-Identifier: Apache-2.0
"""Answers the requests of one environment: the same code in a worker process and in this one.

    reset        seed, film                           -> max_steps, init_state, observation,
                                                         film (1, h, w, 3)
    play         actions (k, action_dim), film        -> rewards (n,), successes (n,), done,
                                                         num_clipped, observation, film (n, h, w, 3)
    demonstrate  seed, noise, frames_after_success    -> success, num_steps, frames

`play` executes a chunk and stops where the episode ends (n <= k); then nobody needs an observation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlakit.environments.base import EnvConfig, Environment
from vlakit.environments.expert_episode import record_expert_episode
from vlakit.environments.messages import Message

FILM = "film"
"""Array of the pictures for a video, uint8 (n, height, width, 3)."""


class EnvironmentSession:
    """One environment and where its episode stands."""

    def __init__(self, config: EnvConfig, task: str) -> None:
        self._env: Environment = config.make(task)
        self._num_steps = 0

    def answer(self, request: Message) -> Message:
        """Return the reply to a request.

        Raises:
            SimulatorError: The simulator cannot go on.
        """
        fields = request.fields
        command = fields["command"]
        if command == "reset":
            return self._reset(fields["seed"], film=fields["film"])
        if command == "play":
            return self._play(request.arrays["actions"], film=fields["film"])
        assert command == "demonstrate", command
        episode = record_expert_episode(
            self._env,
            fields["seed"],
            noise=fields["noise"],
            frames_after_success=fields["frames_after_success"],
        )
        reply = {"seed": episode.seed, "success": episode.success, "num_steps": episode.num_steps}
        return Message(reply, episode.frames)

    def close(self) -> None:
        """Free the simulator and its renderers."""
        self._env.close()

    def _reset(self, seed: int, *, film: bool) -> Message:
        self._env.reset(seed)
        self._num_steps = 0
        arrays = self._env.observe()
        if film:
            arrays[FILM] = self._env.render()[None]
        fields = {"max_steps": self._env.max_steps, "init_state": self._env.init_state}
        return Message(fields, arrays)

    def _play(self, actions: NDArray[Any], *, film: bool) -> Message:
        rewards, successes, pictures = [], [], []
        terminated = False
        for action in actions:
            result = self._env.step(action)
            self._num_steps += 1
            rewards.append(result.reward)
            successes.append(result.success)
            if film:
                pictures.append(self._env.render())
            terminated = result.terminated
            if terminated or self._num_steps >= self._env.max_steps:
                break
        done = terminated or self._num_steps >= self._env.max_steps
        arrays: dict[str, NDArray[Any]] = {} if done else self._env.observe()
        arrays["rewards"] = np.array(rewards, np.float64)
        arrays["successes"] = np.array(successes, bool)
        if film:
            arrays[FILM] = np.stack(pictures)
        return Message({"done": done, "num_clipped": self._env.num_clipped}, arrays)
