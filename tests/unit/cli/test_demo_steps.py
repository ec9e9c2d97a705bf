# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from vlakit.cli.demo import prepare_folder
from vlakit.cli.demo_flags import DemoFlags, DemoPolicies
from vlakit.cli.demo_steps import plan
from vlakit.cli.main import COMMANDS
from vlakit.errors import ConfigError


def test_every_step_is_a_command_that_can_be_typed() -> None:
    for step in plan(DemoFlags()):
        words = shlex.split(step.command.replace("\\\n", " "))
        assert words[0] == "vlakit"
        assert words[1] in COMMANDS
        assert words[1:] == list(step.arguments)


def test_each_task_is_tried_with_the_other_ones_instruction() -> None:
    told = [
        json.loads(flag.split("=", 1)[1])
        for step in plan(DemoFlags())
        for flag in step.arguments
        if flag.startswith("--eval.instructions=")
    ]
    swapped = {"window-open-v3": "close the window", "window-close-v3": "open the window"}
    assert told == [swapped, swapped]  # one per policy


def test_both_policies_learn_from_the_same_recording() -> None:
    trainings = [step.arguments for step in plan(DemoFlags()) if step.arguments[0] == "train"]
    assert [_value(arguments, "--policy.type") for arguments in trainings] == ["eo1", "pi0_fast"]
    assert len({_value(arguments, "--dataset.root") for arguments in trainings}) == 1


def test_one_policy_alone_needs_only_its_own_steps() -> None:
    only = DemoFlags(policy=DemoPolicies(type="eo1"))
    assert [step.arguments[0] for step in plan(only)] == ["collect", "train", *["eval"] * 3]


@pytest.mark.parametrize(
    ("given", "message"),
    [("eo1,pi0-fast", "Did you mean 'pi0_fast'"), ("eo1,eo1", "names a policy twice")],
)
def test_policies_without_a_recipe_are_refused(given: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DemoPolicies(type=given)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_rollouts_use_seeds_that_the_recording_cannot_have_used(seed: int) -> None:
    flags = DemoFlags(seed=seed)
    collect, evaluate = plan(flags)[0], plan(flags)[2]
    first_recorded = int(_value(collect.arguments, "--seed"))
    first_rollout = int(_value(evaluate.arguments, "--seed"))
    most_attempts = 5 * flags.episodes + 10  # collect gives up on experts that fail more often
    assert first_rollout >= first_recorded + most_attempts
    next_run = int(_value(plan(DemoFlags(seed=seed + 1))[0].arguments, "--seed"))
    assert first_rollout + flags.n_episodes <= next_run


def test_an_earlier_demo_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    flags = DemoFlags(output_dir=tmp_path / "demo")
    prepare_folder(flags)
    (flags.output_dir / "report.html").write_text("old")
    prepare_folder(flags)
    assert [path.name for path in flags.output_dir.iterdir()] == ["demo.json"]

    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(ConfigError, match="thesis holds something that no demo made"):
        prepare_folder(DemoFlags(output_dir=tmp_path / "thesis"))
    assert (tmp_path / "thesis" / "chapter.tex").exists()


def test_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'window-open-v3'"):
        DemoFlags(tasks=("window-opn-v3", "window-close-v3"))


def _value(arguments: object, name: str) -> str:
    assert isinstance(arguments, list)
    return next(flag.split("=", 1)[1] for flag in arguments if flag.startswith(f"{name}="))
