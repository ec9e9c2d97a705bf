# SPDX-License-Identifier: Apache-2.0
"""Checkpoint folders: whole or absent, LeRobot's files, exact states."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from vlakit.checkpoints import training_state as state
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
    assert state.checkpoint_name(500, 100_000) == "000500"
    assert state.checkpoint_name(500, 10_000_000) == "00000500"


def test_last_is_a_relative_link_to_the_newest(tmp_path: Path) -> None:
    state.write_checkpoint(tmp_path, "000001", _fill)
    state.write_checkpoint(tmp_path, "000002", _fill)
    assert os.readlink(tmp_path / "last") == "000002"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001", "000002", "last"]
    assert _is_whole(tmp_path / "last")


def test_files_are_as_readable_as_their_folder(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        _fill(folder)
        (folder / "pretrained_model" / "model.safetensors").chmod(0o600)

    target = state.write_checkpoint(tmp_path, "000001", fill)
    mode = (target / "pretrained_model" / "model.safetensors").stat().st_mode & 0o777
    assert mode == target.stat().st_mode & 0o666


def test_a_failing_write_leaves_no_trace_of_itself_in_last(tmp_path: Path) -> None:
    state.write_checkpoint(tmp_path, "000001", _fill)

    def broken(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError("disk full")

    with pytest.raises(CheckpointError, match=r"000002 could not be written \(disk full\)"):
        state.write_checkpoint(tmp_path, "000002", broken)
    assert os.readlink(tmp_path / "last") == "000001"
    assert not (tmp_path / "000002").exists()
    state.write_checkpoint(tmp_path, "000003", _fill)
    assert not list(tmp_path.glob(".unfinished*"))


def test_a_step_saved_again_replaces_the_old_one(tmp_path: Path) -> None:
    state.write_checkpoint(tmp_path, "000001", _fill)
    (tmp_path / "000001" / "old").write_text("old")
    state.write_checkpoint(tmp_path, "000001", _fill)
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
    state.write_checkpoint(folder, "000002", _fill)


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
        state.write_checkpoint(folder, "000001", _fill)
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


def _training() -> tuple[nn.Module, torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.9, 0.95))
    return model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 1 / (1 + s))


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: object) -> float:
    loss = model(torch.randn(4, 3)).square().sum()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    scheduler.step()  # type: ignore[attr-defined]
    return loss.item()


def test_training_goes_on_to_the_bit(tmp_path: Path) -> None:
    model, optimizer, scheduler = _training()
    for _ in range(3):
        _step(model, optimizer, scheduler)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state.save_training_state(
        tmp_path, optimizer=optimizer, scheduler=scheduler, step=3, batch_size=4
    )
    expected = [_step(model, optimizer, scheduler) for _ in range(3)]
    fresh, new_optimizer, new_scheduler = _training()
    fresh.load_state_dict(weights)
    state.load_optimizer(tmp_path, new_optimizer)
    state.load_scheduler(tmp_path, new_scheduler)
    state.load_random_state(tmp_path)
    assert [_step(fresh, new_optimizer, new_scheduler) for _ in range(3)] == expected
    assert state.load_training_step(tmp_path) == (3, 4)


def test_files_and_keys_are_lerobot_s(tmp_path: Path) -> None:
    model, optimizer, scheduler = _training()
    _step(model, optimizer, scheduler)
    state.save_training_state(
        tmp_path, optimizer=optimizer, scheduler=scheduler, step=1, batch_size=4
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "optimizer_param_groups.json",
        "optimizer_state.safetensors",
        "rng_state.safetensors",
        "scheduler_state.json",
        "training_step.json",
    ]
    tensors = load_file(tmp_path / "optimizer_state.safetensors")
    names = {f"state/{i}/{key}" for i in (0, 1) for key in ("exp_avg", "exp_avg_sq", "step")}
    assert set(tensors) == names
    assert tensors["state/0/step"].shape == ()
    group = json.loads((tmp_path / "optimizer_param_groups.json").read_text())[0]
    assert group["params"] == [0, 1]
    assert group["initial_lr"] == 0.1
    schedule = json.loads((tmp_path / "scheduler_state.json").read_text())
    assert schedule["lr_lambdas"] == [None]
    assert schedule["last_epoch"] == 1
    shapes = {k: tuple(v.shape) for k, v in load_file(tmp_path / "rng_state.safetensors").items()}
    assert shapes["py_rng_state"] == (625,)
    assert shapes["np_rng_state_values"] == (624,)
    assert shapes["torch_rng_state"] == (5056,)
    step = json.loads((tmp_path / "training_step.json").read_text())
    assert step == {"step": 1, "num_processes": 1, "batch_size": 4}


def test_a_later_lerobot_s_step_file_is_read(tmp_path: Path) -> None:
    content = {"step": 5, "dp_world_size": 2, "batch_size": 4, "grad_accum_steps": 1}
    (tmp_path / "training_step.json").write_text(json.dumps(content))
    assert state.load_training_step(tmp_path) == (5, 8)


def test_random_state_of_all_three_generators_comes_back() -> None:
    saved = state.random_state()
    expected = (random.random(), np.random.rand(), torch.rand(1).item())
    state.set_random_state(saved)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("optimizer_state.safetensors", "optimizer_state.safetensors is damaged"),
        ("optimizer_param_groups.json", "optimizer_param_groups.json is damaged"),
        (None, "is missing: the checkpoint cannot be resumed"),
    ],
)
def test_damaged_and_missing_files_are_named(
    tmp_path: Path, damage: str | None, message: str
) -> None:
    model, optimizer, scheduler = _training()
    if damage is not None:
        _step(model, optimizer, scheduler)
        state.save_training_state(
            tmp_path, optimizer=optimizer, scheduler=scheduler, step=1, batch_size=4
        )
        (tmp_path / damage).write_bytes(b"{broken")
    with pytest.raises(CheckpointError, match=message):
        state.load_optimizer(tmp_path, optimizer)


def test_an_optimizer_of_another_model_is_refused(tmp_path: Path) -> None:
    model, optimizer, scheduler = _training()
    _step(model, optimizer, scheduler)
    state.save_training_state(
        tmp_path, optimizer=optimizer, scheduler=scheduler, step=1, batch_size=4
    )
    other = torch.optim.AdamW(nn.Linear(5, 2).parameters())
    with pytest.raises(CheckpointError, match=r"has shape \(2, 3\), the policy's is \(2, 5\)"):
        state.load_optimizer(tmp_path, other)
    with pytest.raises(CheckpointError, match=r"is for \[2\] parameters, the policy has \[1\]"):
        state.load_optimizer(tmp_path, torch.optim.AdamW([nn.Parameter(torch.zeros(1))]))
