# SPDX-License-Identifier: Apache-2.0
"""What rollouts gave, and `eval_info.json`: LeRobot's keys, plus seeds, outcomes and intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from vlakit.environments.base import TaskEntry
from vlakit.evaluation.success_rate import wilson_interval
from vlakit.files import written_whole

INFO_FILE = "eval_info.json"


Ending = Literal["success", "time_limit", "terminated", "too_slow", "undecodable", "error"]
"""How an episode ended: `terminated` is the simulator's own end without success, `too_slow` the
limit on planning time, `undecodable` a policy without a first action, `error` the simulator's."""


@dataclass
class EpisodeResult:
    """One rollout."""

    seed: int
    init_state: int | None = None
    """Which of the simulator's stored starts, where it has such."""
    success: bool = False
    num_steps: int = 0
    sum_reward: float = 0.0
    max_reward: float = 0.0
    """Largest reward of a step; 0 when there was none."""
    decode_failures: int = 0
    """Plans that could not be decoded; the last action was held instead."""
    clipped_actions: int = 0
    """Actions outside the environment's box."""
    num_plans: int = 0
    plan_ms: list[float] = field(default_factory=list, compare=False)
    """How long each plan took: the whole call, which may have planned other episodes as well."""
    retries: int = 0
    """How often the simulator died or hung and the episode began anew."""
    ended: Ending | None = None
    reason: str | None = None
    """Why it ended so, in one line, where that needs saying."""
    error_file: str | None = None
    """What the simulator said when it threw, died or hung."""
    video_path: str | None = None
    trace_path: str | None = None
    """Executed actions of a filmed episode: `actions` (steps, action_dim) in an npz file."""

    @property
    def is_finished(self) -> bool:
        """False for an error of the simulator, which says nothing about the policy."""
        return self.ended != "error"

    def to_json(self) -> dict[str, Any]:
        """Return the fields, with the median and the 95th percentile of `plan_ms`."""
        p50, p95 = plan_percentiles([self])
        entry = asdict(self)
        entry["plan_ms"] = [round(value, 3) for value in self.plan_ms]
        return entry | {"plan_ms_p50": p50, "plan_ms_p95": p95}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """Return what `to_json` wrote; other keys are left out."""
        return cls(**{f.name: entry[f.name] for f in fields(cls)})


def plan_percentiles(episodes: Sequence[EpisodeResult]) -> tuple[float | None, float | None]:
    """Return median and 95th percentile of the planning time in ms; None where nobody planned."""
    times = [value for episode in episodes for value in episode.plan_ms]
    if not times:
        return None, None
    p50, p95 = np.percentile(times, (50, 95))
    return round(float(p50), 3), round(float(p95), 3)


@dataclass(frozen=True)
class TaskResult:
    """All rollouts of one task, in the order of their seeds."""

    entry: TaskEntry
    instruction: str
    episodes: list[EpisodeResult]
    """Those that ended in an error, too."""

    @property
    def finished(self) -> list[EpisodeResult]:
        """The rollouts that say something about the policy."""
        return _finished(self.episodes)

    @property
    def num_successes(self) -> int:
        return sum(episode.success for episode in self.finished)

    @property
    def success_rate(self) -> float:
        """Successes over finished rollouts, a fraction in [0, 1]; NaN when none finished."""
        return _rate(self.episodes)


@dataclass(frozen=True)
class EvaluationResult:
    """All rollouts of an evaluation."""

    tasks: list[TaskResult]
    seconds: float
    settings: Mapping[str, Any]
    """What the evaluation was run with: seed, simulator, controls."""
    num_resumed: int = 0
    """Rollouts taken from an earlier run that was stopped; `seconds` is without them."""
    preparation_s: float = 0.0
    """Part of `seconds` that went into what planning does once, see `Planner`; no `plan_ms` has it.
    With several processes that of the first."""

    @property
    def episodes(self) -> list[EpisodeResult]:
        return [episode for task in self.tasks for episode in task.episodes]

    @property
    def success_rate(self) -> float:
        """Successes over finished rollouts of all tasks, a fraction in [0, 1]; NaN for none."""
        return _rate(self.episodes)

    def to_json(self) -> dict[str, Any]:
        """Return the content of `eval_info.json`."""
        groups: dict[str, list[EpisodeResult]] = {}
        for task in self.tasks:
            groups.setdefault(task.entry.group, []).extend(task.episodes)
        overall = _summary(self.episodes) | {
            "eval_s": self.seconds,
            "eval_ep_s": self.seconds / max(1, len(self.episodes) - self.num_resumed),
            "n_resumed": self.num_resumed,
            "preparation_s": self.preparation_s,
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
    finished = task.finished
    return {
        "task_group": task.entry.group,
        "task_id": task.entry.task_id,
        "metrics": {
            "sum_rewards": [episode.sum_reward for episode in finished],
            "max_rewards": [episode.max_reward for episode in finished],
            "successes": [episode.success for episode in finished],
            "video_paths": _video_paths(finished),
            "predicted_video_paths": [],
        },
        "task": task.entry.name,
        "instruction": task.instruction,
        "seeds": [episode.seed for episode in finished],
        "pc_success": _percent(task.success_rate),
        "pc_success_interval_95": _interval(finished),
        **_counts(task.episodes),
        "episodes": [episode.to_json() for episode in task.episodes],
    }


def _summary(episodes: Sequence[EpisodeResult]) -> dict[str, Any]:
    finished = _finished(episodes)
    return {
        "avg_sum_reward": _mean([episode.sum_reward for episode in finished]),
        "avg_max_reward": _mean([episode.max_reward for episode in finished]),
        "pc_success": _percent(_rate(episodes)),
        "video_paths": _video_paths(finished),
        "predicted_video_paths": [],
        "pc_success_interval_95": _interval(finished),
        **_counts(episodes),
    }


def _counts(episodes: Sequence[EpisodeResult]) -> dict[str, Any]:
    """Rates are over `n_episodes`, the finished ones; errors are counted beside them."""
    finished = _finished(episodes)
    p50, p95 = plan_percentiles(episodes)
    return {
        "n_episodes": len(finished),
        "n_errors": len(episodes) - len(finished),
        "retries": sum(episode.retries for episode in episodes),
        "decode_failures": sum(episode.decode_failures for episode in episodes),
        "num_plans": sum(episode.num_plans for episode in episodes),
        "plan_ms_p50": p50,
        "plan_ms_p95": p95,
    }


def _finished(episodes: Sequence[EpisodeResult]) -> list[EpisodeResult]:
    return [episode for episode in episodes if episode.is_finished]


def _rate(episodes: Sequence[EpisodeResult]) -> float:
    finished = _finished(episodes)
    return sum(episode.success for episode in finished) / len(finished) if finished else math.nan


def _percent(rate: float) -> float | None:
    return None if math.isnan(rate) else 100 * rate


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _interval(finished: Sequence[EpisodeResult]) -> list[float]:
    low, high = wilson_interval(sum(episode.success for episode in finished), len(finished))
    return [100 * low, 100 * high]


def _video_paths(episodes: Sequence[EpisodeResult]) -> list[str]:
    return [episode.video_path for episode in episodes if episode.video_path is not None]
