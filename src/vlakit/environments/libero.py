# SPDX-License-Identifier: Apache-2.0
"""Settings of LIBERO: `--env.type=libero`, with LeRobot's flags, defaults and names.

Everything here is known without LIBERO: its tasks, their words and what a policy will see.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from vlakit.environments.base import EnvConfig, Environment, TaskEntry
from vlakit.environments.gl_backend import backend_note
from vlakit.environments.libero_assets import find_assets
from vlakit.environments.libero_expert import EXPERT_TASKS
from vlakit.environments.libero_tasks import MAX_STEPS, SUITE_OF, SUITES, instruction
from vlakit.errors import ConfigError, SimulatorError, did_you_mean
from vlakit.features import ACTION, OBS_IMAGES, OBS_STATE

CAMERA_NAMES = {"agentview_image": "image", "robot0_eye_in_hand_image": "image2"}
"""LIBERO's camera -> last part of the feature's name, as LeRobot has them."""
SUFFIX = "_image"
STATE_NAMES = (
    "x",
    "y",
    "z",
    "axis_angle_x",
    "axis_angle_y",
    "axis_angle_z",
    "finger_left",
    "finger_right",
)
ACTION_NAMES = ("x", "y", "z", "axis_angle_x", "axis_angle_y", "axis_angle_z", "gripper")


@EnvConfig.register_subclass("libero")
@dataclass(frozen=True, kw_only=True)
class LiberoEnvConfig(EnvConfig):
    """Settings of LIBERO: a Panda arm on tables, with words and stored starts."""

    task: str = "libero_10"
    """Suites, separated by commas: libero_spatial, _object, _goal, _10, _90."""
    task_ids: tuple[int, ...] | None = None
    """Which tasks of each suite, by their numbers; null is all."""
    fps: int = 20
    """Control steps per second; LIBERO's demonstrations have 20."""
    episode_length: int | None = None
    """Steps after which an episode counts as failed; null is the suite's own, 280 to 520."""
    obs_type: Literal["pixels_agent_pos", "pixels"] = "pixels_agent_pos"
    """What a policy sees: cameras and state, or cameras alone."""
    camera_name: str = ",".join(CAMERA_NAMES)
    """Cameras, separated by commas; the first one is filmed. Besides the default two there are
    frontview_image, sideview_image and birdview_image."""
    camera_name_mapping: dict[str, str] | None = None
    """Camera -> last part of its feature's name; null is image for agentview_image, image2 for
    robot0_eye_in_hand_image, and their own names for the others."""
    observation_height: int = 360
    """Rows of the pictures."""
    observation_width: int = 360
    """Columns of the pictures."""
    init_states: bool = True
    """Start from LIBERO's stored starts: the one with the number seed modulo their count. False
    draws the objects' places from the seed."""
    control_mode: Literal["relative", "absolute"] = "relative"
    """What an action means: a motion from where the gripper is, or the pose to go to."""
    assets_dir: str | None = None
    """Folder with LIBERO's meshes and textures; null is LIBERO_ASSETS, else LIBERO's own places."""
    fast_render: bool = False
    """Draw without multi-sampling: rough edges, about twice as fast on a CPU. Published checkpoints
    were trained on smooth ones."""

    task_groups: ClassVar[dict[str, tuple[str, ...]]] = SUITES
    package: ClassVar[str] = "libero"

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = (self.observation_height, self.observation_width)
        if min(sizes) < 8 or max(sizes) > 2048:
            raise ConfigError(
                f"--env.observation_height={sizes[0]} and --env.observation_width={sizes[1]} must "
                "be between 8 and 2048 pixels."
            )
        self.cameras()

    def cameras(self) -> dict[str, str]:
        """Return feature -> name of the simulator's camera, in the order of `camera_name`.

        Raises:
            ConfigError: No camera, or two that would share a name.
        """
        names = [name.strip() for name in self.camera_name.split(",") if name.strip()]
        mapping = CAMERA_NAMES if self.camera_name_mapping is None else self.camera_name_mapping
        found = {}
        for name in names:
            if not name.endswith(SUFFIX):
                raise ConfigError(
                    f"--env.camera_name={self.camera_name} has {name!r}, expected LIBERO's name of "
                    f"a picture, which ends in {SUFFIX}: write {name}{SUFFIX}."
                )
            camera = name.removesuffix(SUFFIX)
            found[f"{OBS_IMAGES}.{mapping.get(name, camera)}"] = camera
        if not names or len(found) != len(names):
            raise ConfigError(
                f"--env.camera_name={self.camera_name} gives {len(found)} pictures for "
                f"{len(names)} cameras: name at least one camera, and each one once."
            )
        return found

    def task_names(self) -> Iterable[str]:
        return SUITE_OF

    def task_list(self) -> list[TaskEntry]:
        suites = [word.strip() for word in self.task.split(",") if word.strip()]
        if not suites:
            raise ConfigError(f"--env.task is empty: give suites of LIBERO: {', '.join(SUITES)}.")
        for suite in suites:
            _check_suite(suite)
        if len(set(suites)) != len(suites):
            raise ConfigError(f"--env.task={self.task} names a suite twice: give each one once.")
        return [
            TaskEntry(suite, index, SUITES[suite][index])
            for suite in suites
            for index in self._chosen_ids(suite)
        ]

    def instruction(self, task: str) -> str:
        return instruction(task)

    def max_steps(self, task: str) -> int:
        """Return how many steps an episode of a task has."""
        return self.episode_length or MAX_STEPS[SUITE_OF[task]]

    def features(self) -> dict[str, dict[str, Any]]:
        size = [self.observation_height, self.observation_width, 3]
        picture = {"dtype": "video", "shape": size, "names": ["height", "width", "channels"]}
        features: dict[str, dict[str, Any]] = {name: dict(picture) for name in self.cameras()}
        vectors = {OBS_STATE: STATE_NAMES, ACTION: ACTION_NAMES}
        if self.obs_type == "pixels":
            del vectors[OBS_STATE]
        for name, parts in vectors.items():
            features[name] = {"dtype": "float32", "shape": [len(parts)], "names": list(parts)}
        return features

    def check_machine(self) -> list[str]:
        suites = sorted({entry.group for entry in self.task_list()})
        notes = [backend_note()]
        if self.python is None:  # another interpreter may have them in its own package
            notes.append(f"LIBERO's assets: {find_assets(self.assets_dir, suites)}")
        return [*notes, *super().check_machine()]

    def check_expert(self, task: str) -> None:
        if task not in EXPERT_TASKS:
            raise SimulatorError(
                f"LIBERO's {task} has no scripted expert: take tasks of libero_object other than 1 "
                "(the cream cheese), or task 7 of libero_goal (the stove), with --env.task_ids."
            )
        if self.control_mode != "relative":
            raise SimulatorError(
                f"LIBERO's experts do not act in --env.control_mode={self.control_mode}: leave the "
                "flag out."
            )

    def make(self, task: str) -> Environment:
        from vlakit.environments.libero_simulator import LiberoEnvironment

        return LiberoEnvironment(self, task)

    def _chosen_ids(self, suite: str) -> Iterable[int]:
        count = len(SUITES[suite])
        if self.task_ids == ():
            raise ConfigError("--env.task_ids=[] leaves no task: name some, or leave the flag out.")
        wrong = [index for index in self.task_ids or () if not 0 <= index < count]
        if wrong:
            raise ConfigError(
                f"--env.task_ids={list(self.task_ids or ())} has {wrong[0]}, but {suite} has the "
                f"tasks 0 to {count - 1}."
            )
        return range(count) if self.task_ids is None else sorted(set(self.task_ids))


def _check_suite(word: str) -> None:
    if word in SUITES:
        return
    if word in SUITE_OF:
        suite = SUITE_OF[word]
        raise ConfigError(
            f"--env.task={word} is a task, expected a suite: give --env.task={suite} "
            f"--env.task_ids='[{SUITES[suite].index(word)}]'."
        )
    hint = did_you_mean(word, [*SUITES, *SUITE_OF]) or f" It has {', '.join(SUITES)}."
    raise ConfigError(f"--env.task={word} is not a suite of --env.type=libero.{hint}")
