# SPDX-License-Identifier: Apache-2.0
"""Checkpoint folders: whole or absent, whenever a run is killed."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path

import pytest

from vlakit.checkpoints.run_folder import checkpoint_name, write_checkpoint
from vlakit.errors import CheckpointError


def _fill(folder: Path) -> None:
    (folder / "pretrained_model").mkdir()
    (folder / "pretrained_model" / "model.safetensors").write_bytes(b"x" * 1000)
    (folder / "training_state").mkdir()
    (folder / "training_state" / "training_step.json").write_text('{"step": 1, "batch_size": 2}')


def _is_whole(folder: Path) -> bool:
    files = ("pretrained_model/model.safetensors", "training_state/training_step.json")
    return all((folder / file).is_file() for file in files)


def test_names_are_padded_to_six_digits_or_more() -> None:
    assert checkpoint_name(500, 100_000) == "000500"
    assert checkpoint_name(500, 10_000_000) == "00000500"


def test_last_is_a_relative_link_to_the_newest(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "000001", _fill)
    write_checkpoint(tmp_path, "000002", _fill)
    assert os.readlink(tmp_path / "last") == "000002"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001", "000002", "last"]
    assert _is_whole(tmp_path / "last")


def test_files_are_as_readable_as_their_folder(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        _fill(folder)
        (folder / "pretrained_model" / "model.safetensors").chmod(0o600)

    target = write_checkpoint(tmp_path, "000001", fill)
    mode = (target / "pretrained_model" / "model.safetensors").stat().st_mode & 0o777
    assert mode == target.stat().st_mode & 0o666


def test_a_failing_write_leaves_no_trace_of_itself_in_last(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "000001", _fill)

    def broken(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError("disk full")

    with pytest.raises(CheckpointError, match=r"000002 could not be written \(disk full\)"):
        write_checkpoint(tmp_path, "000002", broken)
    assert os.readlink(tmp_path / "last") == "000001"
    assert not (tmp_path / "000002").exists()
    write_checkpoint(tmp_path, "000003", _fill)
    assert not list(tmp_path.glob(".unfinished*"))


def test_a_step_saved_again_replaces_the_old_one(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, "000001", _fill)
    (tmp_path / "000001" / "old").write_text("old")
    write_checkpoint(tmp_path, "000001", _fill)
    assert not (tmp_path / "000001" / "old").exists()
    assert _is_whole(tmp_path / "last")


FILE_OPERATIONS = frozenset(
    {"os.mkdir", "open", "os.rename", "os.symlink", "os.chmod", "os.rmdir", "os.remove"}
)


def _write_and_die(folder: Path, moment: int) -> None:
    """Write a checkpoint; die by SIGKILL before file operation number `moment`."""
    calls = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal calls
        if event in FILE_OPERATIONS and str(folder) in str(arguments[:2]):
            if calls == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            calls += 1

    sys.addaudithook(count)
    write_checkpoint(folder, "000002", _fill)


def _exit_status(folder: Path, moment: int) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads
        child = os.fork()
    if child == 0:
        try:
            _write_and_die(folder, moment)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    outcomes = []
    for moment in range(100):
        folder = tmp_path / f"killed-{moment}"
        write_checkpoint(folder, "000001", _fill)
        status = _exit_status(folder, moment)
        last = os.readlink(folder / "last")
        assert _is_whole(folder / last), moment
        visible = [path for path in folder.iterdir() if path.name[0].isdigit()]
        assert all(_is_whole(path) for path in visible), moment
        outcomes.append((status, last))
        if status == 0:
            break
    assert len(outcomes) > 10
    assert outcomes[0] == (-signal.SIGKILL, "000001")
    assert outcomes[-1] == (0, "000002")
