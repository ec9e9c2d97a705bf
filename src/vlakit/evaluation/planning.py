# SPDX-License-Identifier: Apache-2.0
"""What acts in a rollout: a planner, which turns observations into chunks of actions.

Everything that a planner has to remember belongs to the episode (`EpisodeMemory`), never to the
planner or to a slot of the simulators, so outcomes do not depend on what runs side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass
class EpisodeMemory:
    """What a planner may remember: made anew for each episode."""

    seed: int
    instruction: str
    generator: torch.Generator
    """Noise of this episode, seeded with its seed; on the CPU."""
    task: str = ""
    """The simulator's name of the task; planners that are policies look at the instruction."""
    num_plans: int = 0
    last_action: NDArray[np.float32] | None = None
    """What the robot was told last, in its units; held when a plan cannot be decoded."""
    history: dict[str, Any] = field(default_factory=dict)
    """Free for planners that look back."""


class Undecodable(NamedTuple):
    """In the place of a chunk: the policy's tokens spell none."""

    reason: str
    num_steps: int
    """How many steps the episode's last action is held instead."""


Plan = NDArray[np.float32] | Undecodable


class Planner(Protocol):
    """Turns observations into chunks of actions; a policy with its processors, for one."""

    @property
    def preparation_s(self) -> float:
        """Seconds that its calls have spent so far on what later ones need not repeat.

        A policy on a GPU records a graph for each number of episodes that it plans for together.
        """
        ...

    def plan(
        self, observations: Sequence[Mapping[str, NDArray[Any]]], memories: Sequence[EpisodeMemory]
    ) -> Sequence[Plan]:
        """Return one chunk (steps, action_dim) per episode, in the robot's units, or why not.

        Args:
            observations: Per episode: cameras uint8 (height, width, 3), vectors float32 (n,).
            memories: Per episode, in the same order.
        """
        ...
