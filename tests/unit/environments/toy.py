# SPDX-License-Identifier: Apache-2.0
"""A simulator of three numbers: fast, exact, and able to misbehave on request."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlakit.environments.base import EnvConfig, StepResult
from vlakit.errors import SimulatorError
from vlakit.features import ACTION, OBS_IMAGE, OBS_STATE

BROKEN = ("missing", "refuse")


@dataclass(frozen=True, kw_only=True)
class ToyEnvConfig(EnvConfig):
    """Push a point over a line; not registered, so that `--env.type` does not offer it."""

    fps: int = 10
    episode_length: int = 20
    size: int = 8
    goal: float = 3.0
    once_dir: str = ""
    """Folder where `exit_once` and `hang_once` remember the seeds that they have spoilt."""

    @property
    def type(self) -> str:
        return "toy"

    def task_names(self) -> Iterable[str]:
        good = ("push", "pull", "fail")
        return (*good, "crash", "crash_odd", "exit", "exit_once", "hang", "hang_once", *BROKEN)

    def instruction(self, task: str) -> str:
        return f"{task} the point"

    def features(self) -> dict[str, dict[str, Any]]:
        names = ["height", "width", "channels"]
        vector = {"dtype": "float32", "shape": [3], "names": None}
        picture = {"dtype": "video", "shape": [self.size, self.size, 3], "names": names}
        return {OBS_IMAGE: picture, OBS_STATE: vector, ACTION: dict(vector)}

    def make(self, task: str) -> ToyEnvironment:
        if task == "missing":
            raise ImportError("no module named 'simulator_of_dreams'")
        if task == "refuse":
            raise SimulatorError("the toy box is closed: open it.")
        return ToyEnvironment(self, task)


class ToyEnvironment:
    def __init__(self, config: ToyEnvConfig, task: str) -> None:
        self.config, self.name = config, task
        self.task = config.instruction(task)
        self.fps, self.max_steps, self.num_clipped = config.fps, config.episode_length, 0
        self.init_state: int | None = None
        self.num_pictures = 0
        self._position = np.zeros(3)
        self._seed = 0

    def _is_first_time(self) -> bool:
        marker = Path(self.config.once_dir) / f"{self.name}_{self._seed}"
        if marker.exists():
            return False
        marker.touch()
        return True

    def reset(self, seed: int) -> None:
        self._position = np.random.default_rng(seed).uniform(-1, 1, 3)
        self._seed, self.num_clipped = seed, 0

    def step(self, action: NDArray[Any]) -> StepResult:
        if self.name == "crash" or (self.name == "crash_odd" and self._seed % 2):
            raise RuntimeError("the point fell off the table")
        if self.name == "exit" or (self.name == "exit_once" and self._is_first_time()):
            print("last words of the toy", file=sys.stderr, flush=True)  # noqa: T201
            os._exit(7)
        if self.name == "hang" or (self.name == "hang_once" and self._is_first_time()):
            time.sleep(60)
        clipped = np.clip(action, -1, 1)
        self.num_clipped += int((clipped != action).any())
        self._position += clipped
        success = self.name != "fail" and bool(self._position[0] > self.config.goal)
        return StepResult(float(self._position[0]), success, success)

    def observe(self) -> dict[str, NDArray[Any]]:
        return {OBS_IMAGE: self.render(), OBS_STATE: self._position.astype(np.float32)}

    def render(self) -> NDArray[np.uint8]:
        print("printing must not disturb the messages")  # noqa: T201
        self.num_pictures += 1
        shade = int(np.clip(128 + 20 * self._position[0], 0, 255))
        return np.full((self.config.size, self.config.size, 3), shade, np.uint8)

    def expert_action(self) -> NDArray[np.float32]:
        return np.array([0.9, 0, 0], np.float32)

    def close(self) -> None:
        pass
