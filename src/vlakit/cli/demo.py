# SPDX-License-Identifier: Apache-2.0
"""`vlakit demo`: the whole way from nothing to a policy that visibly works, and a page that shows it.

It only types the commands that a person would type (`vlakit collect`, `train`, `eval`), in this process,
and puts what they wrote into `report.html`. Two tasks share a scene, so that the instruction decides.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from vlakit.config import parse_flags
from vlakit.environments.config import EnvConfig
from vlakit.errors import ConfigError

_MARKER = "demo.json"
_SIZE = 84
"""Side of the camera picture in pixels: 3 x 3 image tokens of 28, and no resizing."""


@dataclass(frozen=True, kw_only=True)
class DemoFlags:
    """Flags of `vlakit demo`."""

    output_dir: Path = Path("outputs/demo")
    """Folder for everything; an earlier demo in it is replaced."""
    tasks: tuple[str, str] = ("drawer-open-v3", "drawer-close-v3")
    """Two Meta-World tasks that share a scene: each one's instruction is the other's control."""
    episodes: int = 50
    """Demonstrations per task."""
    steps: int = 1000
    """Training steps."""
    batch_size: int = 64
    """Frames per training step."""
    n_episodes: int = 20
    """Rollouts per task and condition."""
    seed: int = 0
    """Seed of the recording, the training and the rollouts."""
    device: str = "cpu"
    """Where the policy trains and acts: cpu, cuda or mps."""

    def __post_init__(self) -> None:
        for name in ("episodes", "steps", "batch_size", "n_episodes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name}={getattr(self, name)} must be at least 1.")


@dataclass(frozen=True, kw_only=True)
class _EnvFlags:
    """The simulator alone, to film its expert."""

    env: EnvConfig
    """The simulator."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command of the demo."""

    title: str
    arguments: Sequence[str]

    @property
    def command(self) -> str:
        """The line to type, flags one below the other."""
        name, *flags = self.arguments
        return " \\\n    ".join([f"vlakit {name}", *(shlex.quote(flag) for flag in flags)])


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One column of the success table: how the policy is shown the world, and what to expect."""

    name: str
    folder: str
    note: str
    flags: Sequence[str] = ()


def main(argv: Sequence[str]) -> int:
    """Run the demo and say where the report is."""
    flags = parse_flags(
        DemoFlags,
        argv,
        prog="vlakit demo",
        summary="Record experts, train EO-1 on them, evaluate it with controls, write a report.",
    )
    console = Console()
    started = time.monotonic()
    _prepare(flags)
    conditions = _conditions(flags)
    seconds = {}
    for step in _plan(flags, conditions):
        console.rule(f"[bold]{step.title}", align="left")
        seconds[step.title] = _timed_run(step)
    report = _report(flags, conditions, seconds, time.monotonic() - started)
    console.rule("[bold]Result", align="left")
    for row in report.rows:
        shown = ", ".join(
            f"{name} {cell.successes}/{cell.num_rollouts}"
            for name, cell in zip(report.conditions, row.cells, strict=True)
        )
        console.print(f"{row.task}: {shown}", highlight=False)
    path = flags.output_dir / "report.html"
    console.print(f"{report.summary}\nOpen {path}", highlight=False)
    return 0


def _prepare(flags: DemoFlags) -> None:
    """Make an empty output folder; only a folder that a demo made is ever replaced."""
    folder = flags.output_dir
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARKER).exists():
            raise ConfigError(
                f"--output_dir={folder} exists and no demo made it: give another folder or remove it."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {name: str(value) for name, value in vars(flags).items()}
    (folder / _MARKER).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _conditions(flags: DemoFlags) -> list[Condition]:
    return [
        Condition(
            name="policy",
            folder="eval",
            note="pictures and instruction as recorded, goals never seen in training.",
        ),
        Condition(
            name="images blanked",
            folder="eval_blank_images",
            note="control: the policy sees one grey picture. What still succeeds needs no eyes.",
            flags=["--eval.blank_images=true"],
        ),
        Condition(
            name="other instruction",
            folder="eval_other_instruction",
            note="control: the policy is told to do the other task. A policy that reads fails here.",
            flags=["--eval.instruction={other}"],
        ),
    ]


def _env_flags(tasks: str) -> list[str]:
    """The workspace fills the picture: the drawer has to cover enough pixels to be located."""
    return [
        "--env.type=metaworld",
        f"--env.task={tasks}",
        f"--env.observation_height={_SIZE}",
        f"--env.observation_width={_SIZE}",
        "--env.crop=[0.34,0.14,0.94,0.74]",
        "--env.episode_length=200",
    ]


def _plan(flags: DemoFlags, conditions: Sequence[Condition]) -> list[Step]:
    steps = [
        Step(title="Record demonstrations", arguments=_collect_arguments(flags)),
        Step(title="Train", arguments=_train_arguments(flags)),
    ]
    for condition in conditions:
        steps += [
            Step(title=f"Evaluate {task}: {condition.name}", arguments=arguments)
            for task, arguments in _eval_arguments(flags, condition)
        ]
    return steps


def _collect_arguments(flags: DemoFlags) -> list[str]:
    return [
        "collect",
        *_env_flags(",".join(flags.tasks)),
        f"--episodes={flags.episodes}",
        "--noise=0.5",
        f"--seed={flags.seed * 10_000}",
        "--vcodec=h264",
        "--repo_id=local/demo",
        f"--root={flags.output_dir / 'dataset'}",
    ]


def _train_arguments(flags: DemoFlags) -> list[str]:
    transforms = {
        "brightness": {"type": "ColorJitter", "kwargs": {"brightness": [0.8, 1.2]}},
        "shift": {"type": "RandomAffine", "kwargs": {"degrees": [0, 0], "translate": [0.05, 0.05]}},
    }
    scaling = {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "QUANTILES"}
    return [
        "train",
        "--dataset.repo_id=local/demo",
        f"--dataset.root={flags.output_dir / 'dataset'}",
        "--dataset.cache_frames=true",
        "--dataset.image_transforms.enable=true",
        "--dataset.image_transforms.max_num_transforms=2",
        f"--dataset.image_transforms.tfs={json.dumps(transforms)}",
        "--policy.type=eo1",
        "--policy.vlm_base=tiny-qwen2.5-vl",
        "--policy.dtype=float32",
        f"--policy.device={flags.device}",
        f"--policy.image_min_pixels={_SIZE * _SIZE}",
        f"--policy.image_max_pixels={_SIZE * _SIZE}",
        "--policy.max_state_dim=4",
        "--policy.max_action_dim=4",
        f"--policy.normalization_mapping={json.dumps(scaling)}",
        "--policy.optimizer_lr=1e-3",
        "--policy.optimizer_weight_decay=0.01",
        "--policy.scheduler_warmup_steps=50",
        f"--policy.scheduler_decay_steps={flags.steps}",
        "--policy.push_to_hub=false",
        "--ema.enable=true",
        "--ema.decay=0.99",
        f"--steps={flags.steps}",
        f"--batch_size={flags.batch_size}",
        "--num_workers=0",
        "--log_freq=20",
        "--save_freq=0",
        f"--seed={flags.seed}",
        f"--output_dir={flags.output_dir / 'train'}",
    ]


def _eval_arguments(flags: DemoFlags, condition: Condition) -> list[tuple[str, list[str]]]:
    checkpoint = flags.output_dir / "train/checkpoints/last/pretrained_model_ema"
    arguments = []
    for task, other in (flags.tasks, flags.tasks[::-1]):
        controls = [flag.format(other=_instruction(other)) for flag in condition.flags]
        arguments.append(
            (
                task,
                [
                    "eval",
                    f"--policy.path={checkpoint}",
                    f"--policy.device={flags.device}",
                    *_env_flags(task),
                    f"--eval.n_episodes={flags.n_episodes}",
                    "--eval.max_videos=2",
                    *controls,
                    f"--seed={_first_rollout_seed(flags)}",
                    f"--output_dir={flags.output_dir / condition.folder / task}",
                ],
            )
        )
    return arguments


def _first_rollout_seed(flags: DemoFlags) -> int:
    """Far from every seed that the recording may have used."""
    return flags.seed * 10_000 + 5_000


def _instruction(task: str) -> str:
    from vlakit.environments.metaworld_tasks import INSTRUCTIONS

    if task not in INSTRUCTIONS:
        raise ConfigError(f"--tasks: {task!r} is not a Meta-World task, such as drawer-open-v3.")
    return INSTRUCTIONS[task]


def _timed_run(step: Step) -> float:
    from vlakit.cli.main import run_command

    started = time.monotonic()
    run_command(step.arguments)
    return time.monotonic() - started


def _report(
    flags: DemoFlags, conditions: Sequence[Condition], seconds: dict[str, float], total: float
) -> Any:
    """Write `report.html` from the files that the commands left; returns what it shows."""
    from vlakit.evaluation.report import Report, SuccessRow, write_report

    rows = [
        SuccessRow(
            task=task,
            instruction=_instruction(task),
            cells=[_cell(flags.output_dir / condition.folder / task) for condition in conditions],
        )
        for task in flags.tasks
    ]
    report = Report(
        title="EO-1 on Meta-World: one policy, two instructions",
        summary=f"Recorded, trained and evaluated in {total / 60:.1f} minutes.",
        conditions=[condition.name for condition in conditions],
        condition_notes=[condition.note for condition in conditions],
        rows=rows,
        loss=_losses(flags.output_dir / "train/log.jsonl"),
        video_pairs=[_videos(flags, conditions, task) for task in flags.tasks],
        facts=_facts(flags, seconds),
        commands=[(step.title, step.command) for step in _plan(flags, conditions)],
    )
    write_report(report, flags.output_dir / "report.html")
    return report


def _cell(folder: Path) -> Any:
    from vlakit.evaluation.report import SuccessCell

    successes = _task_entry(folder)["metrics"]["successes"]
    return SuccessCell(successes=sum(successes), num_rollouts=len(successes))


def _task_entry(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "eval_info.json").read_text(encoding="utf-8"))["per_task"][0]


def _losses(path: Path) -> list[tuple[int, float]]:
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def _videos(flags: DemoFlags, conditions: Sequence[Condition], task: str) -> list[Any]:
    """The expert and each condition's first rollout, all from the same seed."""
    from vlakit.evaluation.report import RolloutVideo

    seed = _first_rollout_seed(flags)
    expert = flags.output_dir / "expert" / f"{task}.mp4"
    _film_expert(flags, task, seed, expert)
    videos = [RolloutVideo(path=expert, caption=f"expert, “{_instruction(task)}”")]
    for condition in conditions:
        entry = _task_entry(flags.output_dir / condition.folder / task)
        videos.append(
            RolloutVideo(
                path=Path(entry["metrics"]["video_paths"][0]),
                caption=f"{condition.name}, “{entry['instruction']}”",
                is_success=entry["metrics"]["successes"][0],
            )
        )
    return videos


def _film_expert(flags: DemoFlags, task: str, seed: int, path: Path) -> None:
    from vlakit.evaluation.video import VideoFile

    config = parse_flags(_EnvFlags, _env_flags(task), prog="vlakit demo").env
    environment = config.make(task)
    video = VideoFile(path, config.fps)
    environment.reset(seed)
    for _ in range(environment.max_steps):
        video.add(environment.render()[None])
        if environment.step(environment.expert_action()).terminated:
            break
    video.add(environment.render()[None])
    video.close()
    environment.close()


def _facts(flags: DemoFlags, seconds: dict[str, float]) -> list[tuple[str, str]]:
    import torch

    from vlakit import __version__

    evaluation = sum(time for title, time in seconds.items() if title.startswith("Evaluate"))
    return [
        ("demonstrations", f"{flags.episodes} per task, recorded in {seconds['Record demonstrations']:.0f} s"),
        ("training", f"{flags.steps} steps of {flags.batch_size} frames in {seconds['Train']:.0f} s"),
        ("evaluation", f"{flags.n_episodes} rollouts per task and condition, in all {evaluation:.0f} s"),
        ("seed", str(flags.seed)),
        ("machine", f"{os.cpu_count()} CPU cores, policy on {flags.device}, {platform.platform()}"),
        ("versions", f"vlakit {__version__}, torch {torch.__version__}"),
    ]
