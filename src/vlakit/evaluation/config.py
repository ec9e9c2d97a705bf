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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_videos < 0:
            raise ConfigError(f"--eval.max_videos={self.max_videos} must be 0 (none) or more.")
