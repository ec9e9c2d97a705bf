# SPDX-License-Identifier: Apache-2.0
"""The commands of the demo in order, flag by flag."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlakit.cli.demo_flags import POLICY_NAMES, DemoFlags
from vlakit.cli.demo_recipes import IMAGE_SIZE, fit_tokenizer, train
from vlakit.environments.metaworld_tasks import INSTRUCTIONS

RECORD, FIT_TOKENIZER = "Record demonstrations", "Fit the action tokenizer"


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


def training_title(policy: str) -> str:
    """Return what the training of a policy is called."""
    return f"{POLICY_NAMES[policy]}: train"


def plan(flags: DemoFlags) -> list[Step]:
    """Return every command of the demo in order."""
    steps = [Step(title=RECORD, arguments=_collect(flags))]
    for policy in flags.policy.names:
        if policy == "pi0_fast":
            steps.append(Step(title=FIT_TOKENIZER, arguments=fit_tokenizer(flags)))
        steps.append(Step(title=training_title(policy), arguments=train(flags, policy)))
        steps += [
            Step(
                title=f"{POLICY_NAMES[policy]}: evaluate, {condition.name}",
                arguments=_evaluate(flags, policy, condition),
            )
            for condition in CONDITIONS
        ]
    return steps


def env_flags(flags: DemoFlags) -> list[str]:
    """Return the simulator's flags, equal in recording and evaluation."""
    return [
        "--env.type=metaworld",
        f"--env.task={','.join(flags.tasks)}",
        f"--env.observation_height={IMAGE_SIZE}",
        f"--env.observation_width={IMAGE_SIZE}",
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
        f"--seed={flags.first_recording_seed}",
        "--vcodec=h264",
        "--repo_id=local/demo",
        f"--root={flags.dataset}",
    ]


def checkpoint(flags: DemoFlags, policy: str) -> Path:
    """Return the checkpoint that is evaluated: averaged weights of the last step."""
    return flags.folder(policy) / "train/checkpoints/last/pretrained_model_ema"


def _evaluate(flags: DemoFlags, policy: str, condition: Condition) -> list[str]:
    controls = ["--eval.blank_images=true"] if condition.blanks_images else []
    if condition.swaps_instructions:
        told = {
            task: INSTRUCTIONS[other]
            for task, other in zip(flags.tasks, reversed(flags.tasks), strict=True)
        }
        controls.append(f"--eval.instructions={json.dumps(told)}")
    return [
        "eval",
        f"--policy.path={checkpoint(flags, policy)}",
        f"--policy.device={flags.device}",
        *env_flags(flags),
        f"--eval.n_episodes={flags.n_episodes}",
        "--eval.max_videos=1",
        *controls,
        f"--seed={flags.first_rollout_seed}",
        f"--output_dir={flags.folder(policy) / condition.folder}",
    ]
