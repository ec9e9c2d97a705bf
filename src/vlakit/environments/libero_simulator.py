# SPDX-License-Identifier: Apache-2.0
"""LIBERO itself: one task, seen, started and moved as LeRobot does it, to the bit.

robosuite looks at the world once per control step, but not at its end: its observation timer runs
ahead, so a state or picture is one or two of the 25 physics steps old. Policies were trained on
that. Here the world is copied at that moment, and drawn from the copy if somebody looks.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlakit.environments.base import StepResult
from vlakit.environments.gl_backend import choose_backend
from vlakit.environments.init_states import read_init_states
from vlakit.environments.libero import LiberoEnvConfig
from vlakit.environments.libero_assets import find_assets
from vlakit.environments.libero_expert import expert
from vlakit.environments.libero_package import load_libero
from vlakit.environments.libero_tasks import SUITE_OF
from vlakit.environments.rendering import SceneRenderer
from vlakit.errors import SimulatorError
from vlakit.features import OBS_STATE

SETTLE_STEPS = 10
"""Steps without motion before an episode: objects fall into place. Source: LeRobot, OpenVLA."""
REST = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0], np.float32)
"""No motion, gripper open."""
SNAPSHOT = "vlakit_snapshot"


class LiberoEnvironment:
    """One task of LIBERO; see `Environment`.

    The state is the gripper's position (m), its rotation as axis times angle (rad) and the places
    of its two fingers (m), float32 (8,). The action moves (x, y, z) and turns the gripper, all in
    [-1, 1], and opens (-1) or closes (1) it.

    Raises:
        SimulatorError: LIBERO is not installed, assets are missing or nothing can draw.
    """

    def __init__(self, config: LiberoEnvConfig, task_name: str) -> None:
        choose_backend()
        suite = SUITE_OF[task_name]
        package = load_libero(find_assets(config.assets_dir, [suite]))
        self.config, self.task_name = config, task_name
        self.task = config.instruction(task_name)
        self.fps = config.fps
        self.max_steps = config.max_steps(task_name)
        self.num_clipped = 0
        self.init_state: int | None = None
        self._starts: NDArray[np.float64] | None = None
        if config.init_states:
            self._starts = read_init_states(
                package / "init_files" / suite / f"{task_name}.pruned_init"
            )
        self._renderer: SceneRenderer | None = None
        self._pictures: dict[str, NDArray[np.uint8]] = {}
        self._seen: Any = None  # MjData as it was when robosuite looked
        self._raw: dict[str, NDArray[np.float64]] = {}
        self._expert: Iterator[NDArray[np.float32]] | None = None
        self._sim = self._build(package / "bddl_files" / suite / f"{task_name}.bddl")

    def reset(self, seed: int) -> None:
        """Start the episode of a seed: its stored start, and the fixtures' places by the seed."""
        self._drop_pictures(world_is_new=True)
        before = np.random.get_state()
        np.random.seed(seed % 2**32)  # robosuite draws from numpy's global generator
        try:
            self._build_world()
            if self._starts is not None:
                self.init_state = seed % len(self._starts)
                self._set_start(self._starts[self.init_state])
            self._set_delta(True)
            for _ in range(SETTLE_STEPS):
                self._raw = self._sim.step(REST)[0]
        finally:
            np.random.set_state(before)
        self._set_delta(self.config.control_mode == "relative")
        self._expert = None
        self.num_clipped = 0

    def step(self, action: NDArray[Any]) -> StepResult:
        """Move for one control step; the episode is over at the first success."""
        given = np.asarray(action, np.float32)
        clipped = np.clip(given, -1.0, 1.0)
        if self.config.control_mode == "absolute":
            clipped[:6] = given[:6]  # metres and radians: there is no box
        self.num_clipped += int(not np.array_equal(clipped, given))
        self._pictures.clear()
        self._raw, reward, success, _ = self._sim.step(clipped)
        return StepResult(float(reward), bool(success), bool(success))

    def observe(self) -> dict[str, NDArray[Any]]:
        seen: dict[str, NDArray[Any]] = {
            name: self._draw(camera) for name, camera in self.config.cameras().items()
        }
        if self.config.obs_type == "pixels_agent_pos":
            seen[OBS_STATE] = state_vector(
                self._raw["robot0_eef_pos"],
                self._raw["robot0_eef_quat"],
                self._raw["robot0_gripper_qpos"],
            )
        return seen

    def render(self) -> NDArray[np.uint8]:
        return self._draw(next(iter(self.config.cameras().values())))

    def expert_action(self) -> NDArray[np.float32]:
        self.config.check_expert(self.task_name)
        if self._expert is None:
            self._expert = expert(self.task_name, self._sim)
        return next(self._expert)

    def close(self) -> None:
        self._drop_pictures(world_is_new=True)
        self._sim.close()

    def _build(self, bddl_file: Path) -> Any:
        libero: Any = importlib.import_module("libero.libero.envs")
        parsing: Any = importlib.import_module("libero.libero.envs.bddl_utils")
        robosuite: Any = importlib.import_module("robosuite")
        observables: Any = importlib.import_module("robosuite.utils.observables")
        problem = parsing.get_problem_info(str(bddl_file))["problem_name"]
        try:
            sim = libero.TASK_MAPPING[problem](
                str(bddl_file),
                robots=["Panda"],
                controller_configs=robosuite.load_controller_config(default_controller="OSC_POSE"),
                gripper_types="default",
                initialization_noise=None,
                use_camera_obs=False,
                has_offscreen_renderer=False,
                control_freq=self.config.fps,
                ignore_done=True,  # steps are counted by the caller
            )
        except (OSError, ValueError) as error:
            raise _cannot_build(self.task_name, error) from error

        @observables.sensor(modality="snapshot")
        def look(_: Any) -> float:
            self._look()
            return 0.0

        self._sim = sim
        sim.add_observable(observables.Observable(SNAPSHOT, look, sampling_rate=self.config.fps))
        return sim

    def _build_world(self) -> None:
        """Build the model anew, until its objects have places that do not overlap."""
        errors: Any = importlib.import_module("robosuite.utils.errors")
        while True:
            # LIBERO adds what opens drawers again at every reset, and each draws random numbers:
            # where the furniture stands would depend on how many episodes came before.
            self._sim.object_property_initializers.clear()
            try:
                self._raw = self._sim.reset()
                return
            except errors.RandomizationError:
                continue
            except (OSError, ValueError) as error:
                raise _cannot_build(self.task_name, error) from error

    def _set_start(self, state: NDArray[np.float64]) -> None:
        sim = self._sim
        expected = 1 + sim.sim.model.nq + sim.sim.model.nv
        if len(state) != expected:
            raise SimulatorError(
                f"LIBERO's stored starts of {self.task_name} have {len(state)} numbers, expected "
                f"{expected}: the assets or the version of hf-libero do not belong together."
            )
        sim.sim.set_state_from_flattened(state)
        sim.sim.forward()
        sim._check_success()
        sim._post_process()
        sim._update_observables(force=True)
        self._raw = sim._get_observations()

    def _set_delta(self, relative: bool) -> None:
        for robot in self._sim.robots:
            robot.controller.use_delta = relative

    def _look(self) -> None:
        """Keep the world as it is now: robosuite calls this when it looks itself."""
        self._seen = copy.copy(self._sim.sim.data._data)

    def _draw(self, camera: str) -> NDArray[np.uint8]:
        if camera in self._pictures:
            return self._pictures[camera]
        if self._renderer is None:
            self._renderer = SceneRenderer(
                self._sim.sim.model._model,
                height=self.config.observation_height,
                width=self.config.observation_width,
                multisampling=not self.config.fast_render,
                hide_collisions=True,
            )
        try:
            picture = self._renderer.draw(self._seen, camera)
        except ValueError as error:
            raise SimulatorError(f"--env.camera_name has {camera}_image: {error}") from error
        # Turned by 180 degrees as LeRobot does it; the renderer has turned it upright already.
        self._pictures[camera] = np.ascontiguousarray(picture[:, ::-1])
        return self._pictures[camera]

    def _drop_pictures(self, *, world_is_new: bool) -> None:
        self._pictures.clear()
        if world_is_new and self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def state_vector(
    position: NDArray[np.float64], quaternion: NDArray[np.float64], fingers: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return LeRobot's state of LIBERO.

    Args:
        position: Of the gripper (m), (3,).
        quaternion: Its rotation as (x, y, z, w). Not made positive first, so angles reach 2 pi.
        fingers: Places of both fingers (m), (2,).

    Returns:
        Position, axis times angle (rad) and fingers, float32 (8,).
    """
    x, y, z, w = np.asarray(quaternion, np.float32)
    w = np.clip(w, np.float32(-1), np.float32(1))
    sine = np.sqrt(np.maximum(np.float32(1) - w * w, np.float32(0)))
    turn = np.zeros(3, np.float32)
    if sine > 1e-10:
        turn = np.array([x, y, z], np.float32) / sine * (np.float32(2) * np.arccos(w))
    return np.concatenate([position, turn, fingers]).astype(np.float32)


def _cannot_build(task: str, error: Exception) -> SimulatorError:
    return SimulatorError(
        f"LIBERO cannot build {task} ({' '.join(str(error).split())}): a file of its assets is "
        "missing or damaged. Give a complete folder with --env.assets_dir."
    )
