# SPDX-License-Identifier: Apache-2.0
"""A simulator that shows what its scripted expert would do, in the place of pictures and state.

With it an expert is a policy like any other: what it would do now is observed, planned as a chunk
of one action, and executed. Nothing is rendered for that, and workers, retries, videos and results
are those of every evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vlakit.environments.base import (
    EnvConfig,
    Environment,
    TaskEntry,
    decode_config,
    encode_config,
)

EXPERT_ACTION = "observation.expert_action"
"""What the expert does now, float32 (action_dim,)."""


@dataclass(frozen=True, kw_only=True)
class ExpertEnvConfig(EnvConfig):
    """Wraps another simulator's settings; made by `of`, not by flags."""

    inner: dict[str, Any] = field(default_factory=dict)
    """The other settings, as a worker process gets them."""

    @classmethod
    def of(cls, config: EnvConfig) -> ExpertEnvConfig:
        """Return the settings under which the expert of a simulator can act."""
        return cls(
            task=config.task,
            fps=config.fps,
            episode_length=config.episode_length,
            python=config.python,
            inner=encode_config(config),
        )

    @property
    def wrapped(self) -> EnvConfig:
        """The other simulator's settings."""
        return decode_config(self.inner)

    @property
    def type(self) -> str:
        return self.wrapped.type

    def task_names(self) -> Iterable[str]:
        return self.wrapped.task_names()

    def task_list(self) -> list[TaskEntry]:
        return self.wrapped.task_list()

    def instruction(self, task: str) -> str:
        return self.wrapped.instruction(task)

    def features(self) -> dict[str, dict[str, Any]]:
        return self.wrapped.features()

    def check_machine(self) -> list[str]:
        for entry in self.task_list():
            self.wrapped.check_expert(entry.name)
        return self.wrapped.check_machine()

    def make(self, task: str) -> Environment:
        return cast(Environment, ExpertEnvironment(self.wrapped.make(task)))


class ExpertEnvironment:
    """Another environment, but for what is observed; see `Environment`."""

    def __init__(self, env: Environment) -> None:
        self._env = env

    def observe(self) -> dict[str, NDArray[np.float32]]:
        """Return the expert's action alone."""
        return {EXPERT_ACTION: self._env.expert_action()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)
