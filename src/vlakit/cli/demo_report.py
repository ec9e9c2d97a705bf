# SPDX-License-Identifier: Apache-2.0
"""From the files that the demo's commands left to the values its report shows."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlakit import __version__
from vlakit.cli.demo_steps import CONDITIONS, DemoFlags, env_flags, plan
from vlakit.config import parse_flags
from vlakit.environments.config import EnvConfig
from vlakit.environments.metaworld_tasks import INSTRUCTIONS
from vlakit.evaluation.report import Report, RolloutVideo, SuccessCell, SuccessRow
from vlakit.evaluation.video import VideoFile


@dataclass(frozen=True, kw_only=True)
class _EnvFlags:
    """The simulator alone, to film its expert."""

    env: EnvConfig
    """The simulator."""


def make_report(flags: DemoFlags, seconds: Mapping[str, float], total_seconds: float) -> Report:
    """Return what the page shows; films the experts on the way.

    Args:
        flags: The demo's flags; its output folder holds what the commands wrote.
        seconds: How long each step took, by title.
        total_seconds: How long everything took.
    """
    rows = [
        SuccessRow(
            task=task,
            instruction=INSTRUCTIONS[task],
            cells=[_cell(flags.output_dir / condition.folder, task) for condition in CONDITIONS],
        )
        for task in flags.tasks
    ]
    return Report(
        title="EO-1 on Meta-World: one policy, two instructions",
        summary=f"Recorded, trained and evaluated in {total_seconds / 60:.1f} minutes.",
        conditions=[condition.name for condition in CONDITIONS],
        condition_notes=[condition.note for condition in CONDITIONS],
        rows=rows,
        loss=_losses(flags.output_dir / "train/log.jsonl"),
        video_groups=[_videos(flags, task) for task in flags.tasks],
        facts=_facts(flags, seconds),
        commands=[(step.title, step.command) for step in plan(flags)],
    )


def _task_entry(folder: Path, task: str) -> dict[str, Any]:
    entries = json.loads((folder / "eval_info.json").read_text(encoding="utf-8"))["per_task"]
    return next(entry for entry in entries if entry["task"] == task)


def _cell(folder: Path, task: str) -> SuccessCell:
    successes = _task_entry(folder, task)["metrics"]["successes"]
    return SuccessCell(successes=sum(successes), num_rollouts=len(successes))


def _losses(path: Path) -> list[tuple[int, float]]:
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def _videos(flags: DemoFlags, task: str) -> list[RolloutVideo]:
    """The expert and each condition's first rollout, all from the same start."""
    film = flags.output_dir / "expert" / f"{task}.mp4"
    _film_expert(flags, task, film)
    videos = [RolloutVideo(path=film, caption=f"expert, “{INSTRUCTIONS[task]}”")]
    for condition in CONDITIONS:
        entry = _task_entry(flags.output_dir / condition.folder, task)
        videos.append(
            RolloutVideo(
                path=Path(entry["metrics"]["video_paths"][0]),
                caption=f"{condition.name}, “{entry['instruction']}”",
                is_success=entry["metrics"]["successes"][0],
            )
        )
    return videos


def _film_expert(flags: DemoFlags, task: str, path: Path) -> None:
    config = parse_flags(_EnvFlags, env_flags(flags), prog="vlakit demo").env
    environment = config.make(task)
    video = VideoFile(path, config.fps)
    environment.reset(flags.first_rollout_seed)
    for _ in range(environment.max_steps):
        video.add(environment.render()[None])
        if environment.step(environment.expert_action()).terminated:
            break
    video.add(environment.render()[None])
    video.close()
    environment.close()


def _facts(flags: DemoFlags, seconds: Mapping[str, float]) -> list[tuple[str, str]]:
    recording, training = seconds["Record demonstrations"], seconds["Train"]
    evaluation = sum(seconds.values()) - recording - training
    machine = f"{os.cpu_count()} CPU cores ({platform.system()} {platform.machine()})"
    return [
        ("demonstrations", f"{flags.episodes} per task, recorded in {recording:.0f} s"),
        ("training", f"{flags.steps} steps of {flags.batch_size} frames in {training:.0f} s"),
        ("evaluation", f"{flags.n_episodes} rollouts per task and condition, {evaluation:.0f} s"),
        ("seed", str(flags.seed)),
        ("machine", f"{machine}, policy on {flags.device}"),
        ("versions", f"vlakit {__version__}, torch {torch.__version__}"),
    ]
