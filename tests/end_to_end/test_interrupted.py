# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and a full disk: one line, and the checkpoints written before stay whole."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.training_command import DATA, POLICY, RUN, resume


def start(output_dir: Path, *flags: str, most_bytes: int | None = None) -> subprocess.Popen[str]:
    """Start a run as a process group of its own; no file of it may be larger than `most_bytes`."""

    def limit() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    arguments = ["train", *DATA, *POLICY, *RUN, f"--output_dir={output_dir}", *flags]
    return subprocess.Popen(
        [sys.executable, "-m", "vlakit.cli", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=limit,
    )


@pytest.mark.parametrize("num_workers", [0, 1])
def test_ctrl_c_says_how_to_go_on(num_workers: int, tmp_path: Path) -> None:
    output_dir = tmp_path / "run"
    flags = ["--steps=5000", "--save_freq=2", "--log_freq=0", f"--num_workers={num_workers}"]
    process = start(output_dir, *flags)
    last = output_dir / "checkpoints" / "last"
    deadline = time.monotonic() + 60
    second = output_dir / "checkpoints" / "000004"  # by now the run knows of the first
    while not second.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    said = [line for line in error.splitlines() if line.startswith("vlakit train: ")]
    assert len(said) == 1
    path = said[0].partition("--config_path=")[2]
    assert "go on with --resume=true" in said[0]
    done = int(os.readlink(last))
    assert resume(Path(path), f"--steps={done + 1}") == 0


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    output_dir = tmp_path / "run"
    process = start(output_dir, "--steps=2", "--save_freq=1", most_bytes=2_000_000)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2, error
    line = error.strip().splitlines()[-1]
    assert line.startswith(
        f"vlakit train: the checkpoint {output_dir}/checkpoints/000001 could not"
    )
    assert "Make room" in line
    assert list((output_dir / "checkpoints").iterdir()) == []
