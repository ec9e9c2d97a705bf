# SPDX-License-Identifier: Apache-2.0
"""`vlakit eval` killed, stopped, gone on with, and shared by several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.damage import one_line
from tests.end_to_end.metaworld_checkpoint import arguments, evaluate, make_checkpoint

FLAGS = (
    "--env.task=handle-press-v3,drawer-close-v3",
    "--env.episode_length=48",
    "--eval.n_episodes=4",
    "--eval.batch_size=2",
    "--eval.max_videos=1",
    # Each episode planned alone, so that results are equal to the bit whatever ran beside it.
    "--eval.policy_batch_size=1",
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def reference(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return evaluate(checkpoint, tmp_path_factory.mktemp("reference") / "out", *FLAGS)


def outcomes(info: dict[str, Any]) -> list[list[tuple[Any, ...]]]:
    names = ("seed", "success", "num_steps", "sum_reward", "max_reward", "num_plans", "ended")
    return [
        [tuple(episode[name] for name in names) for episode in task["episodes"]]
        for task in info["per_task"]
    ]


def stopped(command: list[str], output_dir: Path, sign: int) -> tuple[int, str]:
    """Start a command and stop it after two rollouts; returns exit code and stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vlakit.cli", *command],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    log, deadline = output_dir / "episodes.jsonl", time.monotonic() + 90
    while not log.exists() or len(log.read_text().splitlines()) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if sign == signal.SIGINT:
        os.killpg(process.pid, sign)  # a terminal sends it to the whole group
    else:
        process.send_signal(sign)
    _, error = process.communicate(timeout=60)
    return process.returncode, error


def test_a_killed_run_goes_on_where_it_was(
    checkpoint: Path,
    reference: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    command = arguments(checkpoint, out, *FLAGS)
    code, _ = stopped(command, out, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not (out / "eval_info.json").exists()
    done = len((out / "episodes.jsonl").read_text().splitlines())
    assert 2 <= done < 8

    # It is not begun anew by mistake, and not mixed with other settings.
    one_line(capsys, command, f"holds an evaluation of {done} rollouts", "--resume=true", out=out)
    for flag, words in (
        ("--seed=7", "seed was 1000"),
        ("--env.crop=null", "env.crop was [0.25, 0.15, 1.0, 0.9]"),
        ("--eval.blank_images=true", "eval.blank_images was false"),
        ("--policy.n_action_steps=8", "identity.overrides.n_action_steps was null"),
    ):
        one_line(capsys, [*command, "--resume=true", flag], words, "same value", out=out)

    info = evaluate(checkpoint, out, *FLAGS, "--resume=true", "--eval.batch_size=3")
    assert info["overall"]["n_resumed"] == done
    assert outcomes(info) == outcomes(reference)
    lines = [json.loads(line) for line in (out / "episodes.jsonl").read_text().splitlines()]
    assert [(line["task"], line["seed"]) for line in lines] == [
        (task, seed)
        for task in ("handle-press-v3", "drawer-close-v3")
        for seed in range(1000, 1004)
    ]
    assert len(list((out / "videos").glob("*/*.mp4"))) == 2

    # A finished one can be made longer.
    longer = evaluate(checkpoint, out, *FLAGS, "--resume=true", "--eval.n_episodes=5")
    assert longer["overall"]["n_resumed"] == 8
    assert [task[:4] for task in outcomes(longer)] == outcomes(reference)


def test_another_checkpoint_in_the_same_place_is_noticed(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, copy = tmp_path / "out", tmp_path / "copy"
    make_checkpoint(copy)
    flags = (*FLAGS, "--env.task=handle-press-v3", "--eval.n_episodes=1")
    evaluate(copy, out, *flags)
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    command = [*arguments(copy, out, *flags), "--resume=true"]
    one_line(capsys, command, "identity.checkpoint was", out=out)
    one_line(
        capsys,
        arguments(copy, tmp_path / "new", *flags, "--resume=true"),
        "eval_config.json is missing",
        out=tmp_path / "new",
    )


def test_ctrl_c_says_how_to_go_on(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, error = stopped(arguments(checkpoint, out, *FLAGS), out, signal.SIGINT)
    assert code == 130, error
    assert "Traceback" not in error
    said = [line for line in error.splitlines() if line.startswith("vlakit eval: ")]
    assert said == [
        f"vlakit eval: stopped; go on with --resume=true --output_dir={out} and the same flags"
    ]


@pytest.mark.slow
def test_processes_of_torchrun_share_an_evaluation(
    checkpoint: Path, reference: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *("-m", "vlakit.cli", *arguments(checkpoint, out, *FLAGS)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("success over 8 rollouts") == 1
    info = json.loads((out / "eval_info.json").read_text())
    assert outcomes(info) == outcomes(reference)
