# SPDX-License-Identifier: Apache-2.0
"""Six steps of our training step, optimiser and schedule against six of LeRobot's."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import pytest
import torch

from tests.fixtures_root import cases
from tests.parity.eo1.recorded import RecordedCase
from vlakit.training.optimizer import make_optimizer
from vlakit.training.optimizer_config import preset_optimizer, preset_scheduler
from vlakit.training.schedule import make_scheduler
from vlakit.training.step import StepResult, autocast, train_step

NAMES = [name for name in cases("eo1") if RecordedCase(name).note["train"]["six_adamw_steps"]]


def _six_steps(case: RecordedCase) -> tuple[list[StepResult], torch.nn.Module]:
    recorded = case.note["train"]["six_adamw_steps"]
    policy = case.policy().train()
    config = dataclasses.replace(preset_optimizer(policy.config), grad_clip_norm=recorded["clip"])
    optimizer = make_optimizer(config, policy.parameters())
    scheduler = make_scheduler(
        optimizer, preset_scheduler(policy.config), recorded["num_training_steps"]
    )
    noise, time = case.noise["train_noise"], case.noise["train_time"]
    batch = case.batch("train")

    class FixedNoise:
        forward = staticmethod(partial(policy.forward, noise=noise, time=time))
        parameters = policy.parameters

    results = [
        train_step(
            FixedNoise,
            batch,
            optimizer,
            scheduler,
            grad_clip_norm=config.grad_clip_norm,
            # The recording ran the loop by hand, without mixed precision.
            precision=autocast(torch.device("cpu"), "auto"),
        )
        for _ in range(6)
    ]
    return results, policy


@pytest.mark.parametrize("name", NAMES)
def test_six_steps_give_lerobot_s_losses_rates_and_weights(name: str) -> None:
    case = RecordedCase(name)
    recorded: dict[str, Any] = case.note["train"]["six_adamw_steps"]
    results, policy = _six_steps(case)
    losses = [float(result.loss) for result in results]
    assert losses == pytest.approx(recorded["loss"], rel=case.tolerance(1e-4, 1e-2))
    norms = [float(result.grad_norm) for result in results]
    expected = recorded["grad_norm_before_clip"]
    assert norms == pytest.approx(expected, rel=case.tolerance(1e-3, 1e-1))
    assert [result.lr for result in results] == pytest.approx(recorded["lr"], rel=1e-12)
    parameters = dict(policy.named_parameters())
    for key, length in recorded["param_l2_after"].items():
        if key in parameters:
            own = torch.linalg.vector_norm(parameters[key].detach().double()).item()
            assert own == pytest.approx(length, rel=case.tolerance(1e-5, 1e-3)), key
