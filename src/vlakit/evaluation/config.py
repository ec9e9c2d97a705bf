# SPDX-License-Identifier: Apache-2.0
"""Settings of an evaluation (`--eval.*`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from vlakit.environments.config import RolloutConfig
from vlakit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EvalConfig(RolloutConfig):
    """How many rollouts, how many at once, what to keep, and controls."""

    max_videos: int = 10
    """Rollouts recorded as mp4 per task, the first ones; 0 records none and is faster."""
    blank_images: bool = False
    """Control: the policy sees grey pictures. What it still solves, it solves without eyes."""
    instruction: str | None = None
    """Control: tell the policy this, whatever the task."""
    instructions: dict[str, str] = field(default_factory=dict)
    """Control: task name -> what to tell the policy instead; goes before `instruction`."""

    policy_batch_size: int = 0
    """Episodes planned in one call at most; 0 plans for all that are ready, 1 for each alone, which
    is slower and makes outcomes equal to the bit for any number of environments."""
    stop_when_decided: float | None = None
    """A task ends once the 95 % interval of its success rate is narrower than this fraction, such
    as 0.05; null does all its episodes."""
    max_seconds_per_episode: float | None = None
    """Seconds that planning may take in an episode; beyond, it ends as `too_slow`, a failure."""
    worker_timeout: float = 300.0
    """Seconds that a simulator may take to answer (build a task, reset, play a chunk) before its
    process is started anew."""
    max_retries: int = 2
    """How often an episode begins anew after its simulator died or hung, before it is an error."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_videos", "policy_batch_size", "max_retries"):
            if getattr(self, name) < 0:
                raise ConfigError(f"--eval.{name}={getattr(self, name)} must be 0 or more.")
        for name in ("worker_timeout", "max_seconds_per_episode"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"--eval.{name}={value} must be more than 0 seconds.")
        if self.stop_when_decided is not None and not 0 < self.stop_when_decided < 1:
            raise ConfigError(
                f"--eval.stop_when_decided={self.stop_when_decided} must be between 0 and 1: the "
                "width of an interval of success rates as a fraction, such as 0.05."
            )
