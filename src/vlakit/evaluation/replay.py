# SPDX-License-Identifier: Apache-2.0
"""Recorded actions, played again: `vlakit eval --replay=DATASET`.

The start of each episode, the noise of its collection and its actions are known, so the simulator
has to go the same way again. On that way, what it shows is compared with what was recorded: a
picture that is upside down, a gripper that opens where it closed, another start, another physics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlakit.evaluation.planning import EpisodeMemory
from vlakit.evaluation.recording import RecordedEpisode, Recording
from vlakit.features import OBS_STATE

STRIDE = 5
"""Steps between two comparisons; each costs a picture."""
TURNS = ("as recorded", "upside down", "mirrored", "turned by 180 degrees", "red and blue swapped")
"""How a picture may lie against the recorded one."""


class ComparedFrame(NamedTuple):
    """What one step showed, beside what was recorded there."""

    step: int
    recorded_state: NDArray[np.float64] | None
    """(state_dim,); None where there is no state."""
    state: NDArray[np.float64] | None
    pictures: Mapping[str, Sequence[float]]
    """Camera -> mean absolute difference of the pixels (0 to 255) for each of `TURNS`."""


class ReplayPlanner:
    """Plans what was recorded, `STRIDE` steps at a time; see `Planner`."""

    preparation_s = 0.0

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.frames: dict[tuple[str, int], list[ComparedFrame]] = {}
        """(task, seed) -> comparisons in the order of their steps."""

    def plan(
        self, observations: Sequence[Mapping[str, NDArray[Any]]], memories: Sequence[EpisodeMemory]
    ) -> list[NDArray[np.float32]]:
        """Return one chunk (steps, action_dim) per episode."""
        pairs = zip(observations, memories, strict=True)
        return [self._next(observation, memory) for observation, memory in pairs]

    def _next(
        self, observation: Mapping[str, NDArray[Any]], memory: EpisodeMemory
    ) -> NDArray[np.float32]:
        episode = self._recording.find(memory.task, memory.seed)
        step = memory.num_plans * STRIDE
        if step >= len(episode.actions):
            # The recording is over without success: hold still, in case something is still rolling.
            return np.tile(episode.actions[-1:], (STRIDE, 1))
        if step == 0:  # an episode that begins anew after its simulator died is compared anew
            self.frames[memory.task, memory.seed] = []
        frame = self._compare(episode, step, observation)
        self.frames[memory.task, memory.seed].append(frame)
        return episode.actions[step : step + STRIDE]

    def _compare(
        self, episode: RecordedEpisode, step: int, seen: Mapping[str, NDArray[Any]]
    ) -> ComparedFrame:
        recorded = self._recording.observation(episode, step)
        states = [
            np.asarray(values[OBS_STATE], np.float64) if OBS_STATE in values else None
            for values in (recorded, seen)
        ]
        pictures = {
            name: picture_differences(recorded[name], picture)
            for name, picture in seen.items()
            if picture.ndim == 3
        }
        return ComparedFrame(step, states[0], states[1], pictures)


def picture_differences(
    recorded: NDArray[np.uint8], picture: NDArray[np.uint8]
) -> tuple[float, ...]:
    """Return the mean absolute difference of two pictures for each of `TURNS`, in [0, 255].

    Args:
        recorded: (height, width, 3).
        picture: (height, width, 3).
    """
    turned = (
        picture,
        picture[::-1],
        picture[:, ::-1],
        picture[::-1, ::-1],
        picture[..., ::-1],
    )
    reference = recorded.astype(np.int16)
    return tuple(float(np.abs(one.astype(np.int16) - reference).mean()) for one in turned)
