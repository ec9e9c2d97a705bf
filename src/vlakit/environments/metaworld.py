# SPDX-License-Identifier: Apache-2.0
"""Meta-World v3: fifty table-top tasks of a Sawyer arm, with scripted experts.

`reset(seed)` chooses the goal. Meta-World ignores that seed and draws goals from one long sequence;
here the task's own generator is seeded, one goal is drawn and frozen, and the world is reset to it.
The same seed then gives the same episode and pictures to the bit, on a fresh instance or a used.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vlakit.environments.base import EnvConfig, StepResult, TaskEntry
from vlakit.environments.gl_backend import backend_note, choose_backend
from vlakit.environments.metaworld_tasks import INSTRUCTIONS, TASK_GROUPS
from vlakit.environments.rendering import SceneRenderer
from vlakit.errors import ConfigError, SimulatorError
from vlakit.features import ACTION, OBS_IMAGE, OBS_STATE

CAMERAS = (
    "corner2",
    "corner",
    "corner3",
    "corner4",
    "topview",
    "behindGripper",
    "gripperPOV",
)
UPSIDE_DOWN = ("corner", "corner2", "corner3", "corner4")
CORNER2_POSITION = (0.75, 0.075, 0.7)
"""Where LeRobot moves the camera: closer to the table. Source: lerobot/envs/metaworld.py."""
SIMULATOR_STEPS = 500
"""Meta-World refuses to go on after this many steps."""
STATE_DIM = 4


@EnvConfig.register_subclass("metaworld")
@dataclass(frozen=True, kw_only=True)
class MetaworldEnvConfig(EnvConfig):
    """Settings of Meta-World. One camera, `observation.image`, as LeRobot names it."""

    fps: int = 80
    """Control steps per second; Meta-World has 80."""
    episode_length: int = SIMULATOR_STEPS
    """Steps after which an episode counts as failed, at most 500. LeRobot ignores its own flag."""
    observation_height: int = 480
    """Rows of the camera picture, after the crop."""
    observation_width: int = 480
    """Columns of the camera picture, after the crop."""
    camera_name: str = "corner2"
    """corner, corner2, corner3, corner4, topview, behindGripper or gripperPOV."""
    camera_position: tuple[float, float, float] | None = None
    """Where the camera stands (m); null is (0.75, 0.075, 0.7) for corner2, else the model's own."""
    crop: tuple[float, float, float, float] | None = None
    """What is kept of the square picture: left, top, right, bottom as fractions of its side."""
    fast_render: bool = True
    """Draw without shadow, multi-sampling, reflection and haze: about 10 times faster on a CPU. Set
    false for the look of LeRobot's own Meta-World data."""
    render_size: int = 256
    """Side of the pictures in videos (whole camera, no crop)."""

    task_groups: ClassVar[dict[str, tuple[str, ...]]] = TASK_GROUPS
    package: ClassVar[str] = "metaworld"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.episode_length > SIMULATOR_STEPS:
            raise ConfigError(
                f"--env.episode_length={self.episode_length} is more than {SIMULATOR_STEPS}, where "
                "Meta-World stops: give a smaller number."
            )
        sizes = (self.observation_height, self.observation_width, self.render_size)
        if min(sizes) < 8 or max(sizes) > 2048:
            raise ConfigError(
                f"--env.observation_height={sizes[0]}, --env.observation_width={sizes[1]} and "
                f"--env.render_size={sizes[2]} must be between 8 and 2048 pixels."
            )
        if self.camera_name not in CAMERAS:
            raise ConfigError(
                f"--env.camera_name={self.camera_name} is not a camera of Meta-World: give one of "
                f"{', '.join(CAMERAS)}."
            )
        if self.crop is not None:
            _check_crop(self.crop, self.observation_height, self.observation_width)

    def task_names(self) -> Iterable[str]:
        return INSTRUCTIONS

    def task_list(self) -> list[TaskEntry]:
        for word in self.task.split(","):
            name = word.strip()
            ours = name.removeprefix("metaworld-").replace("-v2", "-v3")
            if name != ours and ours in INSTRUCTIONS:
                raise ConfigError(
                    f"--env.task={name} is not a task of Meta-World v3: give --env.task={ours}."
                )
        return super().task_list()

    def instruction(self, task: str) -> str:
        return INSTRUCTIONS[task]

    def features(self) -> dict[str, dict[str, Any]]:
        size = [self.observation_height, self.observation_width, 3]
        names = ["x", "y", "z", "gripper"]
        vector = {"dtype": "float32", "shape": [STATE_DIM], "names": names}
        return {
            OBS_IMAGE: {"dtype": "video", "shape": size, "names": ["height", "width", "channels"]},
            OBS_STATE: dict(vector),
            ACTION: dict(vector),
        }

    def check_machine(self) -> list[str]:
        return [*super().check_machine(), backend_note()]

    def make(self, task: str) -> MetaworldEnvironment:
        return MetaworldEnvironment(self, task)


class MetaworldEnvironment:
    """One task of Meta-World; see `Environment`.

    The state is the gripper's position (m) and its opening in [0, 1], float32 (4,). The action
    moves the gripper (x, y, z in centimetres per step) and closes it, all in [-1, 1].
    """

    def __init__(self, config: MetaworldEnvConfig, task_name: str) -> None:
        choose_backend()
        try:
            from metaworld.env_dict import ALL_V3_ENVIRONMENTS
            from metaworld.policies import ENV_POLICY_MAP
        except ImportError as error:
            raise SimulatorError(
                f"--env.type=metaworld needs the package metaworld, which cannot be imported "
                f"({error}): install it with `pip install 'vlakit[metaworld]'`."
            ) from error

        self.config = config
        self.task = config.instruction(task_name)
        self.fps = config.fps
        self.max_steps = config.episode_length
        self.num_clipped = 0
        self.init_state = None
        self._sim: Any = ALL_V3_ENVIRONMENTS[task_name]()
        # What Meta-World's `set_task` does, without its pickled task: the goal is part of the
        # simulator's observation, because its experts look there.
        self._sim._set_task_called = True
        self._sim._partially_observable = False
        self._sim.__dict__.pop("sawyer_observation_space", None)
        self._expert = ENV_POLICY_MAP[task_name]()
        self._forward = importlib.import_module("mujoco").mj_forward
        self._raw = np.zeros(39)
        self._renderers: dict[tuple[int, int], SceneRenderer] = {}
        self._place_camera()

    def reset(self, seed: int) -> None:
        """Start the episode of a seed: its goal, its object positions, the arm at rest."""
        sim = self._sim
        sim.seed(seed)
        sim.seeded_rand_vec, sim._freeze_rand_vec = True, False
        sim.reset_model()  # draws the goal
        sim._freeze_rand_vec = True
        sim.reset()
        # Meta-World leaves joints that it set last (an open window) out of the positions that
        # cameras and experts see until the first step.
        self._forward(sim.model, sim.data)
        self._raw = sim._get_obs()
        sim._prev_obs = self._raw[:18].copy()
        self._raw[18:36] = sim._prev_obs
        self.num_clipped = 0

    def step(self, action: NDArray[Any]) -> StepResult:
        """Move for one control step; the episode is over at the first success."""
        clipped = np.clip(action, -1.0, 1.0).astype(np.float32)
        self.num_clipped += int(not np.array_equal(clipped, np.asarray(action, np.float32)))
        self._raw, reward, _, _, info = self._sim.step(clipped)
        success = bool(info["success"])
        return StepResult(float(reward), success, success)

    def observe(self) -> dict[str, NDArray[Any]]:
        config = self.config
        height, width = config.observation_height, config.observation_width
        if config.crop is None:
            picture = self._draw(height, width)
        else:
            left, top, side = crop_pixels(config.crop, height, width)
            picture = self._draw(side, side)[top : top + height, left : left + width]
        state = self._raw[:STATE_DIM].astype(np.float32)
        return {OBS_IMAGE: np.ascontiguousarray(picture), OBS_STATE: state}

    def render(self) -> NDArray[np.uint8]:
        return self._draw(self.config.render_size, self.config.render_size)

    def expert_action(self) -> NDArray[np.float32]:
        with warnings.catch_warnings():
            # The experts ask for more than the box holds and say so at every step.
            warnings.filterwarnings("ignore", message="Constant")
            action = self._expert.get_action(self._raw)
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def close(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
        self._sim.close()

    def _draw(self, height: int, width: int) -> NDArray[np.uint8]:
        name = self.config.camera_name
        if (height, width) not in self._renderers:
            is_slow = not self.config.fast_render
            self._renderers[height, width] = SceneRenderer(
                self._sim.model, height=height, width=width, multisampling=is_slow, shadows=is_slow
            )
        picture = self._renderers[height, width].draw(self._sim.data, name)
        turned = picture[::-1, ::-1] if name in UPSIDE_DOWN else picture
        return np.ascontiguousarray(turned)

    def _place_camera(self) -> None:
        position = self.config.camera_position
        if position is None and self.config.camera_name == "corner2":
            position = CORNER2_POSITION
        if position is not None:
            self._sim.model.camera(self.config.camera_name).pos[:] = position


def crop_pixels(
    crop: tuple[float, float, float, float], height: int, width: int
) -> tuple[int, int, int]:
    """Return (left, top, side): the square of that side is drawn so that the crop has this size."""
    left, top, right, bottom = crop
    side = max(round(height / (bottom - top)), round(width / (right - left)))
    return min(round(left * side), side - width), min(round(top * side), side - height), side


def _check_crop(crop: tuple[float, ...], height: int, width: int) -> None:
    left, top, right, bottom = crop
    text = ",".join(f"{edge:g}" for edge in crop)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ConfigError(
            f"--env.crop=[{text}] must be left, top, right, bottom with 0 <= left < right <= 1 and "
            "0 <= top < bottom <= 1: fractions of the picture's side."
        )
    box_shape, picture_shape = (right - left) / (bottom - top), width / height
    if abs(box_shape / picture_shape - 1) > 0.05:
        raise ConfigError(
            f"--env.crop=[{text}] is {box_shape:.2f} times as wide as high, but the observation of "
            f"{height}x{width} pixels is {picture_shape:.2f} times: give them the same proportions."
        )
