# SPDX-License-Identifier: Apache-2.0
"""Settings of an evaluation (`--eval.*`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from vlakit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How many rollouts, how many at once, what to keep, and controls."""

    n_episodes: int = 50
    """Rollouts per task."""
    batch_size: int = 0
    """Environments at once; 0 is two per core, at most 64. Outcomes do not depend on it."""
    use_async_envs: bool = True
    """Each environment in a process of its own; false keeps them in this one."""
    max_videos: int = 10
    """Rollouts recorded as mp4 per task, the first ones; 0 records none and is faster."""
    blank_images: bool = False
    """Control: the policy sees grey pictures. What it still solves, it solves without eyes."""
    instruction: str | None = None
    """Control: tell the policy this, whatever the task."""
    instructions: dict[str, str] = field(default_factory=dict)
    """Control: task name -> what to tell the policy instead; goes before `instruction`."""

    def __post_init__(self) -> None:
        for name in ("n_episodes", "batch_size", "max_videos"):
            value, least = getattr(self, name), 1 if name == "n_episodes" else 0
            if value < least:
                raise ConfigError(
                    f"--eval.{name}={value} must be at least {least}: give a larger number."
                )

    def num_envs(self, cores: int) -> int:
        """Return how many environments run at once on a machine with that many cores."""
        return min(self.batch_size or min(2 * cores, 64), self.n_episodes)
