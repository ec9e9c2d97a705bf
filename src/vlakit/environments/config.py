# SPDX-License-Identifier: Apache-2.0
"""Settings of simulators (`--env.*`) and of how many run at once (`--eval.*`).

Importing a simulator's file registers its settings: a new one is one file beside this one and one
line here; see `docs/simulators.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlakit.environments.base import EnvConfig
from vlakit.environments.libero import LiberoEnvConfig
from vlakit.environments.metaworld import MetaworldEnvConfig
from vlakit.environments.pusht import PushTEnvConfig
from vlakit.errors import ConfigError

__all__ = ["EnvConfig", "LiberoEnvConfig", "MetaworldEnvConfig", "PushTEnvConfig", "RolloutConfig"]


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """How many rollouts of each task, and how many side by side."""

    n_episodes: int = 50
    """Rollouts per task."""
    batch_size: int = 0
    """Environments at once; 0 is two per core, at most 64. Outcomes do not depend on it."""
    use_async_envs: bool = True
    """Each environment in a process of its own; false keeps them in this one."""

    def __post_init__(self) -> None:
        for name, least in (("n_episodes", 1), ("batch_size", 0)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"--eval.{name}={getattr(self, name)} must be at least {least}: give a larger "
                    "number."
                )

    def num_envs(self, cores: int, num_rollouts: int) -> int:
        """Return how many environments run at once, given the cores and the rollouts to do."""
        return min(self.batch_size or min(2 * cores, 64), num_rollouts)
