# SPDX-License-Identifier: Apache-2.0
"""The commands of the demo, flag by flag: the recipe that makes a small policy work.

What decides, more than the size of the network: the workspace fills the picture, the recording is
noisy while the recorded action is clean (so the policy learns to recover), pictures are shifted and
brightened, and a step is cheap (9 image tokens, 40 tokens in all), so that there are many.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlakit.environments.metaworld_tasks import INSTRUCTIONS
from vlakit.errors import ConfigError, did_you_mean

_SIZE = 84
"""Side of the camera picture in pixels: 3 x 3 image tokens of 28, and no resizing."""
_SEEDS_PER_RUN = 10_000
"""Recording, training and rollouts of one --seed stay clear of those of the next."""
_FIRST_ROLLOUT = 5_000


@dataclass(frozen=True, kw_only=True)
class DemoFlags:
    """Flags of `vlakit demo`."""

    output_dir: Path = Path("outputs/demo")
    """Folder for everything; an earlier demo in it is replaced."""
    tasks: tuple[str, str] = ("window-open-v3", "window-close-v3")
    """Two Meta-World tasks that share a scene: each one's instruction is the other's control."""
    episodes: int = 50
    """Demonstrations per task."""
    steps: int = 1500
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
        least = {"episodes": 1, "steps": 1, "batch_size": 1, "n_episodes": 1, "seed": 0}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"--{name}={getattr(self, name)} must be {minimum} or more.")
        for task in self.tasks:
            if task not in INSTRUCTIONS:
                raise ConfigError(
                    f"--tasks: {task!r} is no Meta-World task, such as window-open-v3."
                    + did_you_mean(task, INSTRUCTIONS)
                )

    @property
    def first_rollout_seed(self) -> int:
        """Far from every seed that the recording may have used."""
        return self.seed * _SEEDS_PER_RUN + _FIRST_ROLLOUT


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
    blanks_images: bool = False
    swaps_instructions: bool = False


CONDITIONS = (
    Condition(
        name="policy",
        folder="eval",
        note="pictures and instruction as recorded, from starts never seen in training.",
    ),
    Condition(
        name="images blanked",
        folder="eval_blank_images",
        note="control: the policy sees one grey picture. What still succeeds needs no eyes.",
        blanks_images=True,
    ),
    Condition(
        name="other instruction",
        folder="eval_other_instruction",
        note="control: the policy is told to do the other task. A policy that listens fails here.",
        swaps_instructions=True,
    ),
)


def plan(flags: DemoFlags) -> list[Step]:
    """Return every command of the demo in order."""
    rollouts = [
        Step(title=f"Evaluate: {condition.name}", arguments=_evaluate(flags, condition))
        for condition in CONDITIONS
    ]
    return [
        Step(title="Record demonstrations", arguments=_collect(flags)),
        Step(title="Train", arguments=_train(flags)),
        *rollouts,
    ]


def env_flags(flags: DemoFlags) -> list[str]:
    """Return the simulator's flags, equal in recording and evaluation."""
    return [
        "--env.type=metaworld",
        f"--env.task={','.join(flags.tasks)}",
        f"--env.observation_height={_SIZE}",
        f"--env.observation_width={_SIZE}",
        # The window has to cover enough pixels to be located.
        "--env.crop=[0.34,0.14,0.94,0.74]",
        "--env.episode_length=200",
    ]


def _collect(flags: DemoFlags) -> list[str]:
    return [
        "collect",
        *env_flags(flags),
        f"--episodes={flags.episodes}",
        "--noise=0.5",
        f"--seed={flags.seed * _SEEDS_PER_RUN}",
        "--vcodec=h264",
        "--repo_id=local/demo",
        f"--root={flags.output_dir / 'dataset'}",
    ]


def _train(flags: DemoFlags) -> list[str]:
    brightness = {"type": "ColorJitter", "kwargs": {"brightness": [0.8, 1.2]}}
    shift = {
        "type": "RandomAffine",
        "kwargs": {"translate": [0.05, 0.05], "degrees": 0, "fill": "edge"},
    }
    scaling = {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "QUANTILES"}
    return [
        "train",
        "--dataset.repo_id=local/demo",
        f"--dataset.root={flags.output_dir / 'dataset'}",
        "--dataset.cache_frames=true",
        "--dataset.image_transforms.enable=true",
        "--dataset.image_transforms.max_num_transforms=2",
        f"--dataset.image_transforms.tfs={json.dumps({'brightness': brightness, 'shift': shift})}",
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


def _evaluate(flags: DemoFlags, condition: Condition) -> list[str]:
    checkpoint = flags.output_dir / "train/checkpoints/last/pretrained_model_ema"
    controls = ["--eval.blank_images=true"] if condition.blanks_images else []
    if condition.swaps_instructions:
        told = {
            task: INSTRUCTIONS[other]
            for task, other in zip(flags.tasks, reversed(flags.tasks), strict=True)
        }
        controls.append(f"--eval.instructions={json.dumps(told)}")
    return [
        "eval",
        f"--policy.path={checkpoint}",
        f"--policy.device={flags.device}",
        *env_flags(flags),
        f"--eval.n_episodes={flags.n_episodes}",
        "--eval.max_videos=1",
        *controls,
        f"--seed={flags.first_rollout_seed}",
        f"--output_dir={flags.output_dir / condition.folder}",
    ]
