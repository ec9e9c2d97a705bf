# SPDX-License-Identifier: Apache-2.0
"""Stopping, resuming and being killed."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.end_to_end.training_command import DATA, POLICY, RUN, log_of, numbers, resume, train

RANDOM_EVERYWHERE = [
    "--steps=6",
    "--save_freq=3",
    "--dataset.image_transforms.enable=true",
    "--ema.enable=true",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output_dir = tmp_path_factory.mktemp("whole") / "run"
    assert train(output_dir, *RANDOM_EVERYWHERE) == 0
    return output_dir


def _stopped_at_three(whole: Path, folder: Path) -> Path:
    """Return a copy of the run as it was after step 3."""
    copy = folder / "stopped"
    shutil.copytree(whole, copy, symlinks=True)
    shutil.rmtree(copy / "checkpoints" / "000006")
    (copy / "checkpoints" / "last").unlink()
    (copy / "checkpoints" / "last").symlink_to("000003")
    return copy


@pytest.mark.parametrize("num_workers", [0, 1])
def test_resuming_equals_never_having_stopped(
    whole: Path, tmp_path: Path, num_workers: int
) -> None:
    stopped = _stopped_at_three(whole, tmp_path)
    assert resume(stopped / "checkpoints" / "last", f"--num_workers={num_workers}") == 0
    assert numbers(stopped) == numbers(whole)
    assert [entry["step"] for entry in log_of(stopped)] == [1, 2, 3, 4, 5, 6]
    for name in ("pretrained_model/model", "pretrained_model_ema/model",
                 "training_state/optimizer_state", "training_state/rng_state"):  # fmt: skip
        ours = load_file(stopped / f"checkpoints/000006/{name}.safetensors")
        theirs = load_file(whole / f"checkpoints/000006/{name}.safetensors")
        assert ours.keys() == theirs.keys()
        assert all(ours[key].equal(theirs[key]) for key in ours), name


def test_each_name_of_the_checkpoint_is_taken(whole: Path, tmp_path: Path) -> None:
    stopped = _stopped_at_three(whole, tmp_path)
    path = stopped / "checkpoints/000003/pretrained_model/train_config.json"
    assert resume(path, "--save_freq=0", "--save_checkpoint=false", "--steps=4") == 0
    assert numbers(stopped)[-1][0] == 4


def test_more_steps_make_another_curve_from_the_first_resumed_step_on(
    whole: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "finished"
    shutil.copytree(whole, copy, symlinks=True)
    assert resume(copy / "checkpoints" / "last", "--steps=8") == 0
    # A cosine of 8 steps without warm-up, at its steps 6 and 7.
    expected = [1e-4 * (1 + math.cos(math.pi * step / 8)) / 2 for step in (6, 7)]
    assert [rate for _, _, _, rate in numbers(copy)[-2:]] == pytest.approx(expected, rel=1e-12)


def test_a_run_that_was_moved_goes_on_in_its_new_place(whole: Path, tmp_path: Path) -> None:
    stopped = _stopped_at_three(whole, tmp_path)
    moved = tmp_path / "elsewhere"
    stopped.rename(moved)
    assert resume(moved / "checkpoints" / "last" / "pretrained_model") == 0
    assert os.readlink(moved / "checkpoints" / "last") == "000006"


def test_own_settings_survive(whole: Path) -> None:
    path = whole / "checkpoints/000003/pretrained_model/vlakit_config.json"
    assert json.loads(path.read_text(encoding="utf-8"))["ema"]["enable"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps=3"], "has done 3 steps and --steps=3 asks for no more; give --steps above 3"),
        (["--policy.path=x"], "--policy.path starts a new run and --resume=true goes on with one"),
        (["--policy.optimizer_lr=1e-3"], "would be ignored"),
        (["--policy.chunk_size=3", "--policy.n_action_steps=3", "--policy.max_action_dim=64"], ""),
    ],
)
def test_what_cannot_be_resumed_is_said(
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    stopped = _stopped_at_three(whole, tmp_path)
    before = sorted(stopped.rglob("*"))
    assert resume(stopped / "checkpoints" / "last", *arguments) == 2
    assert message in capsys.readouterr().err
    assert sorted(stopped.rglob("*")) == before


def test_resume_without_a_checkpoint_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", "--resume=true") == 2
    assert "--resume=true needs --config_path=" in capsys.readouterr().err


@pytest.mark.parametrize("delay_s", [0.0, 0.07])
def test_a_killed_run_can_be_resumed(tmp_path: Path, delay_s: float) -> None:
    output_dir = tmp_path / "run"
    arguments = [*DATA, *POLICY, *RUN, f"--output_dir={output_dir}", "--steps=500", "--save_freq=1"]
    with (tmp_path / "err").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "vlakit.cli", "train", *arguments], stderr=errors
        )
        last = output_dir / "checkpoints" / "last"
        deadline = time.monotonic() + 60
        while not (last / "training_state").is_dir():
            assert process.poll() is None, (tmp_path / "err").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = int(os.readlink(last))
    assert resume(last, f"--steps={done + 1}") == 0
    steps = [entry["step"] for entry in log_of(output_dir)]
    assert steps == list(range(1, done + 2))
    names = [path.name for path in (output_dir / "checkpoints").iterdir()]
    assert not [name for name in names if name.startswith(".")]
