# SPDX-License-Identifier: Apache-2.0
"""Learning rates, optimiser settings and presets as LeRobot records them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from tests.fixtures_root import FIXTURE_ROOT
from vlakit.policies.eo1.config import EO1Config
from vlakit.training.optimizer import make_optimizer
from vlakit.training.optimizer_config import (
    AdamWConfig,
    CosineDecayConfig,
    preset_optimizer,
    preset_scheduler,
)
from vlakit.training.schedule import make_scheduler, schedule_multiplier

FILES = sorted((FIXTURE_ROOT / "schedule").glob("*.json"))
RELATIVE = 1e-12  # float64 arithmetic, at most a few roundings apart


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def recorded(request: pytest.FixtureRequest) -> dict[str, Any]:
    return json.loads(request.param.read_text(encoding="utf-8"))


def _configs(recorded: dict[str, Any]) -> tuple[AdamWConfig, CosineDecayConfig]:
    preset = recorded["optimizer_preset"]
    optimizer = AdamWConfig(**(preset | {"betas": tuple(preset["betas"])}))
    return optimizer, CosineDecayConfig(**recorded["scheduler_preset"])


def test_four_recordings_are_there() -> None:
    assert len(FILES) == 4


def test_every_recorded_learning_rate_is_met(recorded: dict[str, Any]) -> None:
    optimizer, scheduler = _configs(recorded)
    multiplier = schedule_multiplier(scheduler, recorded["num_training_steps"])
    rates = recorded["lr_used_at_step"]
    for step, expected in zip(rates["step"], rates["lr"], strict=True):
        assert optimizer.lr * multiplier(step) == pytest.approx(expected, rel=RELATIVE, abs=0), step


def test_torch_s_scheduler_gives_the_same_rates_step_by_step(recorded: dict[str, Any]) -> None:
    config, schedule = _configs(recorded)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = make_optimizer(config, [parameter])
    scheduler = make_scheduler(optimizer, schedule, recorded["num_training_steps"])
    rates = recorded["lr_used_at_step"]
    expected = dict(zip(rates["step"], rates["lr"], strict=True))
    for step in range(1100):
        if step in expected:
            rate = optimizer.param_groups[0]["lr"]
            assert rate == pytest.approx(expected[step], rel=RELATIVE, abs=0), step
        optimizer.step()
        scheduler.step()


def test_the_parameter_group_is_lerobot_s(recorded: dict[str, Any]) -> None:
    config, schedule = _configs(recorded)
    optimizer = make_optimizer(config, [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)])
    make_scheduler(optimizer, schedule, recorded["num_training_steps"])
    assert len(optimizer.param_groups) == recorded["num_param_groups"] == 1
    group = {k: v for k, v in optimizer.param_groups[0].items() if k != "params"}
    expected = recorded["param_group_at_step0"]
    assert set(group) == set(expected)
    for name, value in expected.items():
        mine = list(group[name]) if isinstance(group[name], tuple) else group[name]
        same = pytest.approx(value, rel=RELATIVE) if isinstance(value, float) else value
        assert mine == same, name


@pytest.mark.parametrize("steps", [3000, 100_000])
def test_eo1_s_settings_are_the_recorded_presets(steps: int) -> None:
    path = FIXTURE_ROOT / "schedule" / f"eo1_steps{steps}.json"
    recorded = json.loads(path.read_text(encoding="utf-8"))
    optimizer, scheduler = _configs(recorded)
    policy = EO1Config(push_to_hub=False)
    assert preset_optimizer(policy) == optimizer
    assert preset_scheduler(policy) == scheduler
    assert optimizer.grad_clip_norm == recorded["grad_clip_norm"]
