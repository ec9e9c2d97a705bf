# SPDX-License-Identifier: Apache-2.0
"""From the files that the demo's commands left to the values its report shows."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlakit import __version__
from vlakit.cli.demo_costs import compare_costs
from vlakit.cli.demo_flags import POLICY_NAMES, DemoFlags
from vlakit.cli.demo_steps import CONDITIONS, RECORD, env_flags, plan
from vlakit.config import parse_flags
from vlakit.environments.config import EnvConfig
from vlakit.environments.metaworld_tasks import INSTRUCTIONS
from vlakit.evaluation.report import (
    LossCurve,
    Report,
    RolloutVideo,
    SuccessCell,
    SuccessRow,
    VideoGroup,
)
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
    policies = flags.policy.names
    names = [POLICY_NAMES[policy] for policy in policies]
    experts = {task: _film_expert(flags, task) for task in flags.tasks}
    return Report(
        title=f"{' and '.join(names)} on Meta-World: one set of demonstrations, two instructions",
        summary=f"Recorded, trained and evaluated in {total_seconds / 60:.1f} minutes.",
        conditions=[condition.name for condition in CONDITIONS],
        condition_notes=[condition.note for condition in CONDITIONS],
        rows=[_success(flags, policy, task) for policy in policies for task in flags.tasks],
        comparison=compare_costs(flags, seconds),
        losses=[
            LossCurve(title=name, points=_losses(flags.folder(policy) / "train/log.jsonl"))
            for policy, name in zip(policies, names, strict=True)
        ],
        video_groups=[
            _videos(flags, policy, task, experts[task])
            for policy in policies
            for task in flags.tasks
        ],
        facts=_facts(flags, seconds),
        commands=[(step.title, step.command) for step in plan(flags)],
    )


def _task_entry(folder: Path, task: str) -> dict[str, Any]:
    entries = json.loads((folder / "eval_info.json").read_text(encoding="utf-8"))["per_task"]
    return next(entry for entry in entries if entry["task"] == task)


def _success(flags: DemoFlags, policy: str, task: str) -> SuccessRow:
    folders = [flags.folder(policy) / condition.folder for condition in CONDITIONS]
    successes = [_task_entry(folder, task)["metrics"]["successes"] for folder in folders]
    return SuccessRow(
        policy=POLICY_NAMES[policy],
        task=task,
        instruction=INSTRUCTIONS[task],
        cells=[SuccessCell(successes=sum(each), num_rollouts=len(each)) for each in successes],
    )


def _losses(path: Path) -> list[tuple[int, float]]:
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def _videos(flags: DemoFlags, policy: str, task: str, expert: Path) -> VideoGroup:
    """The expert and each condition's first rollout, all from the same start."""
    videos = [RolloutVideo(path=expert, caption=f"expert, “{INSTRUCTIONS[task]}”")]
    for condition in CONDITIONS:
        entry = _task_entry(flags.folder(policy) / condition.folder, task)
        videos.append(
            RolloutVideo(
                path=Path(entry["metrics"]["video_paths"][0]),
                caption=f"{condition.name}, “{entry['instruction']}”",
                is_success=entry["metrics"]["successes"][0],
            )
        )
    return VideoGroup(title=f"{POLICY_NAMES[policy]}, {task}", videos=videos)


def _film_expert(flags: DemoFlags, task: str) -> Path:
    path = flags.output_dir / "expert" / f"{task}.mp4"
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
    return path


def _facts(flags: DemoFlags, seconds: Mapping[str, float]) -> Sequence[tuple[str, str]]:
    machine = f"{os.cpu_count()} CPU cores ({platform.system()} {platform.machine()})"
    return [
        ("demonstrations", f"{flags.episodes} per task, recorded in {seconds[RECORD]:.0f} s"),
        ("evaluation", f"{flags.n_episodes} rollouts per policy, task and condition"),
        ("seed", str(flags.seed)),
        ("machine", f"{machine}, policies on {flags.device}"),
        ("versions", f"vlakit {__version__}, torch {torch.__version__}"),
    ]
