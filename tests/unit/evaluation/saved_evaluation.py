# SPDX-License-Identifier: Apache-2.0
"""An output folder as `vlakit eval` leaves it, made by hand: films, traces, an error, retries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vlakit.environments.base import TaskEntry
from vlakit.evaluation.results import EpisodeResult, EvaluationResult, TaskResult
from vlakit.evaluation.video import VideoFile

TASKS = (
    TaskEntry("libero_goal", 0, "open the drawer"),
    TaskEntry("libero_goal", 1, "<push> the plate"),
    TaskEntry("libero_10", 0, "both moka pots"),
)


def make_episode(
    seed: int, *, success: bool, init_state: int | None = None, **changes: Any
) -> EpisodeResult:
    """Return an episode that ended as such episodes do."""
    generator = np.random.default_rng(seed)
    episode = EpisodeResult(
        seed=seed,
        success=success,
        num_steps=40 + seed % 7 if success else 80,
        sum_reward=float(success),
        num_plans=10,
        plan_ms=[float(value) for value in generator.gamma(9.0, 4.0, 10)],
        ended="success" if success else "time_limit",
        init_state=init_state,
    )
    for name, value in changes.items():
        setattr(episode, name, value)
    return episode


def make_result(outcomes: dict[TaskEntry, list[bool]], **settings: Any) -> EvaluationResult:
    """Return an evaluation with these outcomes, seeds counted from 1000."""
    tasks = [
        TaskResult(
            entry,
            entry.name,
            [make_episode(1000 + i, success=ok, init_state=i) for i, ok in enumerate(successes)],
        )
        for entry, successes in outcomes.items()
    ]
    base = {"seed": 1000, "env": {"type": "libero", "task": "libero_goal,libero_10"}}
    return EvaluationResult(tasks, 321.0, base | settings)


def write_film(path: Path, shade: int, num_pictures: int = 30) -> None:
    """Record a square that moves over a grey ground."""
    film = VideoFile(path, fps=10)
    for step in range(num_pictures):
        picture = np.full((1, 64, 64, 3), shade, np.uint8)
        picture[0, 20:40, step : step + 20] = (240, 120, 40)
        film.add(picture)
    film.close()


def write_evaluation(folder: Path) -> EvaluationResult:
    """Fill a folder with an evaluation of three tasks in two suites; returns what is in it."""
    patterns = {
        TASKS[0]: [True] * 9 + [False],
        TASKS[1]: [True, False] * 5,
        TASKS[2]: [False] * 10,
    }
    result = make_result(
        patterns,
        policy="eo1",
        checkpoint="outputs/train/goal/checkpoints/000200/pretrained_model",
        command="vlakit eval --policy.path=outputs/... --env.type=libero '--env.task=a & b'",
        versions={"vlakit": "0.1", "torch": "2.13.0"},
        machine="2 CPU cores",
        config={"eval": {"n_episodes": 10}, "seed": 1000},
    )
    generator = np.random.default_rng(0)
    for task in result.tasks:
        for index in (0, 1):
            episode, name = task.episodes[index], f"{task.entry.group}_{task.entry.task_id}"
            film = folder / "videos" / name / f"eval_episode_{index}.mp4"
            write_film(film, 60 + 60 * index)
            actions = np.cumsum(generator.normal(0, 0.1, (episode.num_steps, 7)), axis=0)
            trace = film.with_suffix(".npz")
            np.savez(trace, actions=actions.astype(np.float32))
            episode.video_path, episode.trace_path = str(film), str(trace)
    error = folder / "errors" / "libero_10_0_seed_1003.txt"
    error.parent.mkdir(parents=True)
    error.write_text("Traceback (most recent call last):\nRuntimeError: <the gripper> fell off\n")
    broken = result.tasks[2].episodes[3]
    broken.ended, broken.reason, broken.error_file = "error", "the simulator threw", str(error)
    result.tasks[2].episodes[4].retries = 1
    result.tasks[1].episodes[2].decode_failures = 2
    result.save(folder)
    return result
