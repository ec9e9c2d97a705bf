# SPDX-License-Identifier: Apache-2.0
"""One episode while it runs: what it shows the planner, what it executes, how it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlakit.environments.messages import Message
from vlakit.environments.session import FILM
from vlakit.errors import ActionDecodeError
from vlakit.evaluation.film import EpisodeFilm
from vlakit.evaluation.planning import EpisodeMemory, Plan, Undecodable
from vlakit.evaluation.results import Ending, EpisodeResult
from vlakit.evaluation.schedule import Rollout
from vlakit.features import OBS_IMAGE, OBS_PREFIX

GREY = 128
"""Value of every pixel under `--eval.blank_images`."""


class RunningEpisode:
    """An episode in a slot, from the request to reset until `result.ended` is set.

    Args:
        rollout: Task and seed.
        instruction: What the planner is told.
        retries: How often it had to begin anew before.
        error_file: What the simulator said then.
    """

    def __init__(
        self,
        rollout: Rollout,
        instruction: str,
        *,
        retries: int = 0,
        error_file: str | None = None,
    ) -> None:
        generator = torch.Generator().manual_seed(rollout.seed)
        self.rollout = rollout
        self.memory = EpisodeMemory(rollout.seed, instruction, generator, rollout.entry.name)
        self.result = EpisodeResult(rollout.seed, retries=retries, error_file=error_file)
        self.film: EpisodeFilm | None = None
        self._observation: Mapping[str, NDArray[Any]] = {}
        self._chunk: NDArray[np.float32] | None = None
        self._max_steps = 0

    @property
    def is_playing(self) -> bool:
        """Whether a chunk is being executed, rather than the episode being started."""
        return self._chunk is not None

    def begin(self, reply: Message, film: EpisodeFilm | None) -> None:
        """Take in what the reset showed."""
        self.film, self._observation = film, reply.arrays
        self._max_steps = reply.fields["max_steps"]
        self.result.init_state = reply.fields["init_state"]
        if film is not None:
            film.add(reply.arrays[FILM])

    def look(self, *, blank_images: bool) -> dict[str, NDArray[Any]]:
        """Return what the planner gets to see."""
        seen = {name: a for name, a in self._observation.items() if name.startswith(OBS_PREFIX)}
        if blank_images:
            for name, array in seen.items():
                if name.startswith(OBS_IMAGE):
                    seen[name] = np.full_like(array, GREY)
        return seen

    def take_plan(
        self, plan: Plan, plan_ms: float, *, max_seconds: float | None
    ) -> NDArray[np.float32] | None:
        """Return the chunk (steps, action_dim) to execute; None when the episode ends here.

        Args:
            plan: Of the planner.
            plan_ms: How long the planner took.
            max_seconds: How long it may take in an episode; None is for ever.

        Raises:
            ActionDecodeError: An action is not a number.
        """
        result = self.result
        result.num_plans += 1
        result.plan_ms.append(plan_ms)
        self.memory.num_plans += 1
        seconds = sum(result.plan_ms) / 1e3
        if max_seconds is not None and seconds > max_seconds:
            self._end("too_slow", f"{seconds:.3g} s of planning after {result.num_steps} steps")
            return None
        if isinstance(plan, Undecodable):
            result.decode_failures += 1
            if self.memory.last_action is None:
                self._end("undecodable", plan.reason)
                return None
            plan = np.tile(self.memory.last_action, (plan.num_steps, 1))
        self._check_finite(plan)
        self._chunk = plan
        return plan

    def record(self, reply: Message) -> None:
        """Take in what a chunk gave."""
        assert self._chunk is not None
        result, rewards = self.result, reply.arrays["rewards"]
        executed = self._chunk[: len(rewards)]
        highest = float(rewards.max())
        result.max_reward = max(result.max_reward, highest) if result.num_steps else highest
        result.num_steps += len(rewards)
        result.sum_reward += float(rewards.sum())
        result.success |= bool(reply.arrays["successes"].any())
        result.clipped_actions = reply.fields["num_clipped"]
        self.memory.last_action = executed[-1]
        if self.film is not None:
            self.film.add(reply.arrays[FILM], executed)
        if not reply.fields["done"]:
            self._observation = reply.arrays
        elif result.success:
            self._end("success")
        else:
            out_of_time = result.num_steps >= self._max_steps
            self._end("time_limit" if out_of_time else "terminated")

    def fail(self, reason: str) -> None:
        """End in an error of the simulator."""
        self.discard()
        self.result.success = False
        self.result.ended, self.result.reason = "error", reason

    def discard(self) -> None:
        """Give the episode up; no video of it is kept."""
        if self.film is not None:
            self.film.discard()
            self.film = None

    def _end(self, how: Ending, reason: str | None = None) -> None:
        self.result.ended, self.result.reason = how, reason
        if self.film is not None:
            self.film.close()
            self.result.video_path = str(self.film.video_path)
            if self.result.num_steps:
                self.result.trace_path = str(self.film.trace_path)

    def _check_finite(self, chunk: NDArray[np.float32]) -> None:
        rows = np.flatnonzero(~np.isfinite(chunk).all(axis=1))
        if len(rows):
            raise ActionDecodeError(
                f"The policy returned an action that is not a number at step "
                f"{self.result.num_steps + int(rows[0])} ({self.rollout.entry.name}, seed "
                f"{self.rollout.seed}, plan {self.result.num_plans}), expected finite values: "
                "check its weights and statistics."
            )
