# SPDX-License-Identifier: Apache-2.0
"""EO-1's loss, gradients and optimisation against LeRobot 0.6.1.

Tolerances are those of the recordings' README: what the reference itself varies by between kernels,
with room for another summation order.
"""

from __future__ import annotations

import pytest
import torch

from tests.fixtures_root import cases
from tests.parity.eo1.recorded import RecordedCase, norm_error, relative


@pytest.fixture(params=cases("eo1"))
def case(request: pytest.FixtureRequest) -> RecordedCase:
    return RecordedCase(request.param)


def _loss(case: RecordedCase, policy: torch.nn.Module) -> torch.Tensor:
    noise = case.noise
    return policy(case.batch("train"), noise=noise["train_noise"], time=noise["train_time"])[0]


def test_parameters_have_the_reference_s_names_and_order(case: RecordedCase) -> None:
    names = [name for name, _ in case.policy().named_parameters()]
    assert names == list(case.json("train_grad_norms"))


def test_loss_equals_lerobot(case: RecordedCase) -> None:
    policy = case.policy().train()
    loss, metrics = policy(
        case.batch("train"), noise=case.noise["train_noise"], time=case.noise["train_time"]
    )
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(
        case.note["train"]["loss"], rel=case.tolerance(float32=1e-5, bfloat16=3e-3)
    )
    assert metrics == {"loss": loss.item()}


def test_gradients_equal_lerobot(case: RecordedCase) -> None:
    policy = case.policy().train()
    _loss(case, policy).backward()
    gradients = {name: p.grad for name, p in policy.named_parameters()}
    expected = case.json("train_grad_norms")
    largest = max(norm for norm in expected.values() if norm is not None)
    errors = {name: norm_error(gradients[name], norm, largest) for name, norm in expected.items()}
    assert max(errors.values()) <= case.tolerance(float32=1e-4, bfloat16=0.1), errors
    for name, gradient in case.tensors("train_grads_some").items():
        own = gradients[name]
        assert own is not None
        assert relative(own, gradient) <= case.tolerance(float32=1e-4, bfloat16=0.1), name


def test_one_seed_gives_the_reference_s_time_noise_and_loss(case: RecordedCase) -> None:
    policy = case.policy().train()
    drawn = case.tensors("seeded_noise")
    seeded = case.note["train"]["seeded"]
    torch.manual_seed(seeded["seed"])
    loss, _ = policy(case.batch("train"))
    tolerance = case.tolerance(float32=1e-5, bfloat16=3e-3)
    assert loss.item() == pytest.approx(seeded["loss"], rel=tolerance)
    given, _ = policy(case.batch("train"), noise=drawn["seeded_noise"], time=drawn["seeded_time"])
    assert loss.item() == pytest.approx(given.item(), rel=1e-6)


@pytest.mark.parametrize(
    "name", [name for name in cases("eo1") if RecordedCase(name).note["train"]["six_adamw_steps"]]
)
def test_six_optimizer_steps_equal_lerobot(name: str) -> None:
    case = RecordedCase(name)
    policy = case.policy().train()
    config, expected = policy.config, case.note["train"]["six_adamw_steps"]
    optimizer = torch.optim.AdamW(
        policy.parameters(),
        lr=config.optimizer_lr,
        betas=config.optimizer_betas,
        eps=config.optimizer_eps,
        weight_decay=config.optimizer_weight_decay,
    )
    losses, norms = [], []
    for rate in expected["lr"]:
        optimizer.param_groups[0]["lr"] = rate
        loss = _loss(case, policy)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), expected["clip"])
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        norms.append(norm.item())
    assert losses == pytest.approx(expected["loss"], rel=case.tolerance(1e-4, 1e-2))
    assert norms == pytest.approx(expected["grad_norm_before_clip"], rel=case.tolerance(1e-3, 0.1))
    sizes = {name: p.detach().double().norm().item() for name, p in policy.named_parameters()}
    assert sizes == pytest.approx(expected["param_l2_after"], rel=case.tolerance(1e-5, 1e-3))
    head = dict(policy.named_parameters())
    for name, value in case.tensors("train6_head_params").items():
        assert relative(head[name].detach(), value) <= case.tolerance(1e-5, 1e-3), name
