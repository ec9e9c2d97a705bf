# SPDX-License-Identifier: Apache-2.0
"""PushT: push a T-shaped block onto its mark, seen from above; the simulator gym-pusht."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vlakit.environments.base import EnvConfig, StepResult
from vlakit.errors import ConfigError, SimulatorError
from vlakit.features import ACTION, OBS_IMAGE, OBS_STATE

TASK = "PushT-v0"
INSTRUCTION = "Push the T-shaped block onto the T-shaped target."
"""The sentence of the public dataset lerobot/pusht; LeRobot's own evaluation says nothing."""
NO_EXPERT = "PushT has no scripted expert: train on recorded demonstrations, such as lerobot/pusht."
TABLE_SIZE = 512.0
"""Side of the table, in which places are given."""
CONTROL_HZ = 10


@EnvConfig.register_subclass("pusht")
@dataclass(frozen=True, kw_only=True)
class PushTEnvConfig(EnvConfig):
    """Settings of PushT. One camera, `observation.image`, as LeRobot names it."""

    task: str = TASK
    """The only task."""
    fps: int = CONTROL_HZ
    """Control steps per second; PushT has 10."""
    episode_length: int = 300
    """Steps after which an episode counts as failed."""
    observation_height: int = 96
    """Rows of the picture. LeRobot's flag says 384, but it draws 96, as its datasets have."""
    observation_width: int = 96
    """Columns of the picture."""
    visualization_height: int = 384
    """Rows of the pictures in videos."""
    visualization_width: int = 384
    """Columns of the pictures in videos."""

    package: ClassVar[str] = "gym_pusht"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fps != CONTROL_HZ:
            raise ConfigError(
                f"--env.fps={self.fps} is not possible: PushT takes {CONTROL_HZ} actions a second."
            )
        for name in ("observation", "visualization"):
            height, width = (getattr(self, f"{name}_{side}") for side in ("height", "width"))
            if min(height, width) < 8 or max(height, width) > 2048:
                raise ConfigError(
                    f"--env.{name}_height={height} and --env.{name}_width={width} must be between "
                    "8 and 2048 pixels."
                )

    def task_names(self) -> Iterable[str]:
        return (TASK,)

    def instruction(self, task: str) -> str:
        return INSTRUCTION

    def features(self) -> dict[str, dict[str, Any]]:
        size = [self.observation_height, self.observation_width, 3]
        place = {"dtype": "float32", "shape": [2], "names": ["x", "y"]}
        return {
            OBS_IMAGE: {"dtype": "video", "shape": size, "names": ["height", "width", "channels"]},
            OBS_STATE: dict(place),
            ACTION: dict(place),
        }

    def check_expert(self, task: str) -> None:
        raise SimulatorError(NO_EXPERT)

    def make(self, task: str) -> PushTEnvironment:
        return PushTEnvironment(self)


class PushTEnvironment:
    """PushT; see `Environment`.

    State and action are places on the table, (x, y) in [0, 512], float32 (2,): where the pusher is,
    and where it shall go. It succeeds once 95 % of the block lie on the mark; the reward is how
    near it is to that.

    Raises:
        SimulatorError: gym-pusht is not installed, or a library that it opens.
    """

    def __init__(self, config: PushTEnvConfig) -> None:
        self.config = config
        self.task = config.instruction(TASK)
        self.fps = config.fps
        self.max_steps = config.episode_length
        self.num_clipped = 0
        self.init_state = None
        # With this kind of observation nothing is drawn by steps.
        self._sim: Any = _simulator_class()(
            obs_type="environment_state_agent_pos",
            observation_height=config.observation_height,
            observation_width=config.observation_width,
            visualization_height=config.visualization_height,
            visualization_width=config.visualization_width,
        )

    def reset(self, seed: int) -> None:
        self._sim.reset(seed=seed)
        self._sim._last_action = None  # or the last episode's is drawn into the first picture
        self.num_clipped = 0

    def step(self, action: NDArray[Any]) -> StepResult:
        """Move for one control step; the episode is over at the first success."""
        given = np.asarray(action, np.float32)
        clipped = np.clip(given, 0.0, TABLE_SIZE)
        self.num_clipped += int(not np.array_equal(clipped, given))
        _, reward, success, _, _ = self._sim.step(clipped)
        return StepResult(float(reward), bool(success), bool(success))

    def observe(self) -> dict[str, NDArray[Any]]:
        place = np.array(self._sim.agent.position, np.float32)
        return {OBS_IMAGE: np.ascontiguousarray(self._sim._render()), OBS_STATE: place}

    def render(self) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self._sim.render())

    def expert_action(self) -> NDArray[np.float32]:
        raise SimulatorError(NO_EXPERT)

    def close(self) -> None:
        self._sim.close()


def _simulator_class() -> Any:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    try:
        with warnings.catch_warnings():
            # pygame imports pkg_resources, which says in several ways that it will be gone.
            warnings.simplefilter("ignore")
            return importlib.import_module("gym_pusht.envs.pusht").PushTEnv
    except ImportError as error:
        hint = "install it with `pip install 'vlakit[pusht]'`"
        if ".so" in str(error):  # OpenCV of the package index draws windows
            hint = "`sudo apt-get install -y --no-install-recommends libgl1 libglib2.0-0` helps"
        raise SimulatorError(
            f"--env.type=pusht needs the package gym-pusht, which cannot be imported ({error}): "
            f"{hint}."
        ) from error
