# SPDX-License-Identifier: Apache-2.0
"""What a run needs to go on: LeRobot's files, exact states, damage named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from vlakit.checkpoints import training_state as state
from vlakit.errors import CheckpointError


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


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("optimizer_state.safetensors", "optimizer_state.safetensors is damaged"),
        ("optimizer_param_groups.json", "optimizer_param_groups.json cannot be read as JSON"),
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
