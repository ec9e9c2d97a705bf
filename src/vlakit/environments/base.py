# SPDX-License-Identifier: Apache-2.0
"""What a simulator has to offer: one `Environment` per task, made by one `EnvConfig`.

Physics and camera are apart on purpose: `step` moves the world, and nothing is rendered until
somebody calls `observe` or `render`. A chunk of actions costs one picture, not one per action.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import draccus
import numpy as np
from numpy.typing import NDArray

from vlakit.errors import ConfigError, SimulatorError, did_you_mean


class StepResult(NamedTuple):
    """What one action did."""

    reward: float
    success: bool
    terminated: bool
    """True when the episode is over; the step limit is counted by the caller."""


class Environment(Protocol):
    """One task of one simulator.

    `reset` with the same seed gives the same episode to the bit, in any order and however often the
    instance was used before. Actions are clipped to the box by `step`, and `num_clipped` counts how
    many of them needed it since the last reset.
    """

    task: str
    """The instruction, in plain words."""
    fps: int
    max_steps: int
    num_clipped: int
    init_state: int | None
    """Which of the simulator's stored starts the last reset took; None where it has none."""

    def reset(self, seed: int) -> None: ...

    def step(self, action: NDArray[Any]) -> StepResult: ...

    def observe(self) -> dict[str, NDArray[Any]]:
        """Return `observation.*`: cameras uint8 (height, width, 3), vectors float32 (n,)."""
        ...

    def render(self) -> NDArray[np.uint8]:
        """Return a picture for people, uint8 (height, width, 3)."""
        ...

    def expert_action(self) -> NDArray[np.float32]:
        """Return what a scripted expert does now, clipped to the action box.

        Raises:
            SimulatorError: This task has no expert.
        """
        ...

    def close(self) -> None: ...


class TaskEntry(NamedTuple):
    """One task to evaluate, named as LeRobot names it in `eval_info.json`."""

    group: str
    task_id: int
    name: str


@dataclass(frozen=True, kw_only=True)
class EnvConfig(draccus.ChoiceRegistry):
    """Settings of a simulator (`--env.type`, `--env.*`); torch-free and light to import."""

    task: str = ""
    """Tasks to run, separated by commas."""
    fps: int = 30
    """Control steps per second; also the speed of recorded videos."""
    episode_length: int | None = None
    """Steps after which an episode counts as failed; null is the simulator's own limit."""
    python: str | None = None
    """Interpreter that runs the simulator, such as /opt/sim/bin/python; null is this one."""

    task_groups: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Names that stand for several tasks."""
    package: ClassVar[str] = ""
    """The Python package of the simulator; empty where there is none."""

    def __post_init__(self) -> None:
        if self.fps < 1 or (self.episode_length is not None and self.episode_length < 1):
            raise ConfigError(
                f"--env.fps={self.fps} and --env.episode_length={self.episode_length} must be at "
                "least 1: give positive numbers."
            )

    @property
    def type(self) -> str:
        """The name given to `--env.type`."""
        return self.get_choice_name(self.__class__)

    def task_names(self) -> Iterable[str]:
        """Return every task this simulator knows."""
        raise NotImplementedError

    def instruction(self, task: str) -> str:
        """Return the sentence a policy is told for a task."""
        raise NotImplementedError

    def features(self) -> dict[str, dict[str, Any]]:
        """Return observations and action as a dataset's `info.json` describes them."""
        raise NotImplementedError

    def check_machine(self) -> list[str]:
        """Make sure, without the simulator, that this machine has what it needs; for the start.

        Returns:
            Lines to say, such as what draws the pictures.

        Raises:
            SimulatorError: A package, library or file is missing; it says how to get it.
        """
        is_elsewhere = self.python is not None
        if self.package and not is_elsewhere and importlib.util.find_spec(self.package) is None:
            raise SimulatorError(
                f"--env.type={self.type} needs the package {self.package}, which is not installed: "
                f"install it with `pip install 'vlakit[{self.type}]'`, or name the Python that has "
                "it with --env.python."
            )
        return []

    def check_expert(self, task: str) -> None:
        """Make sure, without the simulator, that a task has a scripted expert.

        Raises:
            SimulatorError: It has none; it says which have.
        """

    def make(self, task: str) -> Environment:
        """Build the environment of one task; imports the simulator.

        Raises:
            SimulatorError: The simulator is not installed or cannot render.
        """
        raise NotImplementedError

    def task_list(self) -> list[TaskEntry]:
        """Return the tasks that `--env.task` asks for, groups expanded, in the order given.

        Raises:
            ConfigError: No task, a task twice, or a name that is neither task nor group.
        """
        known = list(self.task_names())
        words = [word.strip() for word in self.task.split(",") if word.strip()]
        if not words:
            raise ConfigError(
                f"--env.task is empty, but --env.type={self.type} needs to know what to do: give "
                f"one or more of its {len(known)} tasks separated by commas, such as {known[0]}."
            )
        entries = []
        for word in words:
            if word not in known and word not in self.task_groups:
                choices = [*known, *self.task_groups]
                hint = did_you_mean(word, choices) or f" It has {', '.join(choices)}."
                raise ConfigError(
                    f"--env.task={word} is not a task of --env.type={self.type}.{hint}"
                )
            names = self.task_groups.get(word, (word,))
            entries += [TaskEntry(word, index, name) for index, name in enumerate(names)]
        names = [entry.name for entry in entries]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"--env.task={self.task} holds {twice} twice: give each task once.")
        return entries


def encode_config(config: EnvConfig) -> dict[str, Any]:
    """Return a config as JSON for a worker process: where its class lives, and its fields."""
    cls = config.__class__
    return {"class": f"{cls.__module__}:{cls.__qualname__}", "fields": dataclasses.asdict(config)}


def decode_config(entry: dict[str, Any]) -> EnvConfig:
    """Rebuild a config from `encode_config`; only a parent process of ours writes such an entry."""
    module, name = entry["class"].split(":")
    cls = getattr(importlib.import_module(module), name)
    fields = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in entry["fields"].items()
    }
    return cls(**fields)
