# SPDX-License-Identifier: Apache-2.0
"""Settings of `vlakit collect`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vlakit.environments.config import EnvConfig
from vlakit.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """Record a scripted expert in a simulator as a LeRobot v3.0 dataset."""

    env: EnvConfig
    """The simulator; `--env.task` is a comma list of its tasks."""
    repo_id: str
    """Name of the dataset, such as local/demo."""
    root: str | None = None
    """Folder of the dataset, which must not exist; null is LeRobot's cache folder."""
    episodes: int = 50
    """Successful episodes to keep, per task."""
    seed: int = 0
    """First seed; attempts use seed, seed + 1, ... for every task."""
    noise: float = 0.1
    """Standard deviation of the noise on the executed motion; the clean action is recorded."""
    frames_after_success: int = 6
    """Frames recorded after the first success."""
    num_workers: int = 0
    """Simulator processes; 0 is one per core. The dataset does not depend on it."""
    video: bool = True
    """Cameras as mp4; false stores PNG pictures in the parquet files."""
    vcodec: Literal["libsvtav1", "h264"] = "libsvtav1"
    """Codec of the mp4 files."""

    def __post_init__(self) -> None:
        for name in ("episodes", "num_workers", "frames_after_success", "seed", "noise"):
            value, least = getattr(self, name), 1 if name == "episodes" else 0
            if value < least:
                raise ConfigError(f"--{name}={value} must be at least {least}: give a larger one.")
        if not self.repo_id.strip("/"):
            raise ConfigError("--repo_id is empty: give the dataset a name such as local/demo.")
