# SPDX-License-Identifier: Apache-2.0
"""What rollouts gave, and `eval_info.json`: LeRobot's keys, plus seeds, outcomes and intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlakit.environments.base import TaskEntry
from vlakit.evaluation.success_rate import wilson_interval
from vlakit.files import written_whole

INFO_FILE = "eval_info.json"


@dataclass
class EpisodeResult:
    """One rollout."""

    seed: int
    success: bool = False
    num_steps: int = 0
    sum_reward: float = 0.0
    max_reward: float = -float("inf")
    clipped_actions: int = 0
    """Actions outside the environment's box."""
    video_path: str | None = None


@dataclass(frozen=True)
class TaskResult:
    """All rollouts of one task, in the order of their seeds."""

    entry: TaskEntry
    instruction: str
    episodes: list[EpisodeResult]

    @property
    def num_successes(self) -> int:
        return sum(episode.success for episode in self.episodes)

    @property
    def success_rate(self) -> float:
        """Successes as a fraction in [0, 1]."""
        return self.num_successes / len(self.episodes)


@dataclass(frozen=True)
class EvaluationResult:
    """All rollouts of an evaluation."""

    tasks: list[TaskResult]
    seconds: float
    settings: Mapping[str, Any]
    """What the evaluation was run with: seed and controls."""

    @property
    def episodes(self) -> list[EpisodeResult]:
        return [episode for task in self.tasks for episode in task.episodes]

    @property
    def success_rate(self) -> float:
        """Successes over all tasks, as a fraction in [0, 1]."""
        return sum(episode.success for episode in self.episodes) / len(self.episodes)

    def to_json(self) -> dict[str, Any]:
        """Return the content of `eval_info.json`."""
        groups: dict[str, list[EpisodeResult]] = {}
        for task in self.tasks:
            groups.setdefault(task.entry.group, []).extend(task.episodes)
        overall = _summary(self.episodes) | {
            "eval_s": self.seconds,
            "eval_ep_s": self.seconds / len(self.episodes),
        }
        return {
            "per_task": [_task_json(task) for task in self.tasks],
            "per_group": {name: _summary(episodes) for name, episodes in groups.items()},
            "overall": overall,
            "settings": dict(self.settings),
        }

    def save(self, folder: Path) -> Path:
        """Write `eval_info.json` as a whole or not at all; returns its path."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_json(), indent=2, allow_nan=False)
        with written_whole(folder / INFO_FILE) as part:
            part.write_text(text, encoding="utf-8")
        return folder / INFO_FILE


def _task_json(task: TaskResult) -> dict[str, Any]:
    episodes = task.episodes
    return {
        "task_group": task.entry.group,
        "task_id": task.entry.task_id,
        "metrics": {
            "sum_rewards": [episode.sum_reward for episode in episodes],
            "max_rewards": [episode.max_reward for episode in episodes],
            "successes": [episode.success for episode in episodes],
            "video_paths": _video_paths(episodes),
            "predicted_video_paths": [],
        },
        "task": task.entry.name,
        "instruction": task.instruction,
        "seeds": [episode.seed for episode in episodes],
        "pc_success": 100 * task.success_rate,
        "pc_success_interval_95": _interval(episodes),
        "episodes": [asdict(episode) for episode in episodes],
    }


def _summary(episodes: Sequence[EpisodeResult]) -> dict[str, Any]:
    count = len(episodes)
    return {
        "avg_sum_reward": sum(episode.sum_reward for episode in episodes) / count,
        "avg_max_reward": sum(episode.max_reward for episode in episodes) / count,
        "pc_success": 100 * sum(episode.success for episode in episodes) / count,
        "n_episodes": count,
        "video_paths": _video_paths(episodes),
        "predicted_video_paths": [],
        "pc_success_interval_95": _interval(episodes),
    }


def _interval(episodes: Sequence[EpisodeResult]) -> list[float]:
    low, high = wilson_interval(sum(episode.success for episode in episodes), len(episodes))
    return [100 * low, 100 * high]


def _video_paths(episodes: Sequence[EpisodeResult]) -> list[str]:
    return [episode.video_path for episode in episodes if episode.video_path is not None]
