# SPDX-License-Identifier: Apache-2.0
"""Where the files of an evaluation lie in its output folder.

eval_info.json                              rates and intervals, at the end
eval_config.json                            what it was started with
episodes.jsonl                              one line per rollout, as it finishes
videos/<group>_<task_id>/eval_episode_<i>.mp4
traces/<group>_<task_id>/eval_episode_<i>.npz   executed actions of the filmed rollouts
errors/<group>_<task_id>/seed_<seed>.txt        what a simulator said when it failed
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlakit.environments.base import TaskEntry

LOG_FILE = "episodes.jsonl"
CONFIG_FILE = "eval_config.json"


@dataclass(frozen=True)
class OutputFiles:
    """Names below an output folder; nothing is made by asking for them."""

    folder: Path

    @property
    def config(self) -> Path:
        """What the evaluation was started with."""
        return self.folder / CONFIG_FILE

    def log(self, rank: int = 0) -> Path:
        """Return the log of one process; the first one's is the only one that stays."""
        return self.folder / (LOG_FILE if rank == 0 else f"episodes.rank{rank}.jsonl")

    def logs(self) -> list[Path]:
        """Return the logs that are there, of all processes."""
        return sorted((*self.folder.glob(LOG_FILE), *self.folder.glob("episodes.rank*.jsonl")))

    def video(self, entry: TaskEntry, index: int) -> Path:
        """Return the video of a rollout."""
        return self.folder / "videos" / _task(entry) / f"eval_episode_{index}.mp4"

    def trace(self, entry: TaskEntry, index: int) -> Path:
        """Return the executed actions of a rollout."""
        return self.folder / "traces" / _task(entry) / f"eval_episode_{index}.npz"

    def error(self, entry: TaskEntry, seed: int) -> Path:
        """Return what the simulator said when it failed in a rollout."""
        return self.folder / "errors" / _task(entry) / f"seed_{seed}.txt"


def _task(entry: TaskEntry) -> str:
    return f"{entry.group}_{entry.task_id}"
