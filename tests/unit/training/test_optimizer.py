# SPDX-License-Identifier: Apache-2.0
"""The fused kernel makes the same update and resumes what the other began."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from vlakit.checkpoints.training_state import load_optimizer, save_training_state
from vlakit.training.optimizer import has_fused_update, make_optimizer
from vlakit.training.optimizer_config import AdamConfig, AdamWConfig, OptimizerConfig, SGDConfig

CONFIGS = [AdamWConfig(lr=0.01), AdamConfig(lr=0.01), SGDConfig(lr=0.01, momentum=0.9)]


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3))


def _steps(model: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
    for seed in seeds:
        torch.manual_seed(seed)
        model(torch.randn(4, 7)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_the_kernel_is_the_one_asked_for() -> None:
    model = _model()
    kernels = {
        fused: make_optimizer(AdamWConfig(), model.parameters(), fused=fused).defaults["fused"]
        for fused in (False, True)
    }
    assert kernels == {False: None, True: True}
    assert has_fused_update(torch.device("cpu"))
    assert not has_fused_update(torch.device("mps"))


@pytest.mark.parametrize("config", CONFIGS)
def test_the_fused_update_is_the_plain_one_up_to_rounding(config: OptimizerConfig) -> None:
    plain, fused = _model(), _model()
    _steps(plain, make_optimizer(config, plain.parameters(), fused=False), range(5))
    _steps(fused, make_optimizer(config, fused.parameters(), fused=True), range(5))
    for own, expected in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own, expected, atol=1e-6, rtol=1e-5)
    assert not next(plain.parameters()).equal(next(_model().parameters()))


@pytest.mark.parametrize("before", [True, False])
def test_either_kernel_goes_on_with_the_moments_of_the_other(before: bool, tmp_path: Path) -> None:
    config, whole = AdamWConfig(lr=0.01), _model()
    _steps(whole, make_optimizer(config, whole.parameters()), range(6))
    model = _model()
    first = make_optimizer(config, model.parameters(), fused=before)
    _steps(model, first, range(3))
    scheduler = torch.optim.lr_scheduler.ConstantLR(first, factor=1.0)
    save_training_state(tmp_path, optimizer=first, scheduler=scheduler, step=3, batch_size=4)
    second = make_optimizer(config, model.parameters(), fused=not before)
    load_optimizer(tmp_path, second)
    assert bool(second.param_groups[0]["fused"]) is not before, "this run's kernel is taken"
    _steps(model, second, range(3, 6))
    for own, expected in zip(model.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(own, expected, atol=1e-6, rtol=1e-5)
