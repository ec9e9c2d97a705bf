# SPDX-License-Identifier: Apache-2.0
"""Precision of a step: which products are computed in bfloat16, and over which weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.unit.policies.eo1.tiny import tiny_batch, tiny_policy
from vlakit.training.optimizer import make_optimizer
from vlakit.training.optimizer_config import AdamWConfig
from vlakit.training.step import autocast, train_step

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("dtype", "mixed_precision", "expected"),
    [
        ("float32", None, torch.float32),
        ("auto", None, torch.float32),
        ("bfloat16", None, torch.bfloat16),
        ("float32", "bf16", torch.bfloat16),
        ("auto", "bf16", torch.bfloat16),
        ("bfloat16", "no", torch.float32),
        ("float32", "no", torch.float32),
    ],
)
def test_the_flag_wins_over_what_the_dtype_says(
    dtype: str, mixed_precision: str | None, expected: torch.dtype
) -> None:
    with autocast(CPU, dtype, mixed_precision):
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == expected


def _losses(dtype: str, mixed_precision: str | None) -> tuple[list[float], Any, Any]:
    """Return the losses of 25 steps on one batch, and policy and optimiser after them."""
    torch.manual_seed(0)
    policy = tiny_policy().train()
    policy.model.vlm_backbone.to(getattr(torch, dtype))
    optimizer = make_optimizer(AdamWConfig(lr=1e-3), policy.parameters())
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    batch, losses = tiny_batch(), []
    for _ in range(25):
        torch.manual_seed(5)
        result = train_step(
            policy,
            batch,
            optimizer,
            scheduler,
            grad_clip_norm=1.0,
            precision=autocast(CPU, dtype, mixed_precision),
        )
        losses.append(float(result.loss))
    return losses, policy, optimizer


def test_bfloat16_follows_the_loss_curve_of_float32() -> None:
    """Bounds: 3 % of the first loss over float32 weights, 6 % where the weights are bfloat16."""
    expected, *_ = _losses("float32", None)
    assert expected[-1] < 0.7 * expected[0], "the problem is learnt"
    mixed, policy, optimizer = _losses("float32", "bf16")
    pure, *_ = _losses("bfloat16", None)
    for losses, bound in ((mixed, 0.03), (pure, 0.06)):
        assert losses != expected
        gap = max(abs(own - plain) for own, plain in zip(losses, expected, strict=True))
        assert gap < bound * expected[0]
    assert {p.dtype for p in policy.parameters()} == {torch.float32}
    moments = [value for state in optimizer.state.values() for value in state.values()]
    assert {value.dtype for value in moments} == {torch.float32}


def test_an_update_that_bfloat16_cannot_hold_reaches_float32_weights() -> None:
    """The reason for float32 weights: a step of 1e-5 rounds away beside a bfloat16 weight of 1."""

    class OneWeight(torch.nn.Module):
        def __init__(self, dtype: torch.dtype) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1, 1, dtype=dtype))

        def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
            return torch.mm(batch["x"], self.weight).float().sum(), {}

    def after(dtype: torch.dtype) -> float:
        model = OneWeight(dtype)
        optimizer = make_optimizer(AdamWConfig(lr=1e-5, weight_decay=0.0), model.parameters())
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
        precision = autocast(CPU, "float32", "bf16")
        batch = {"x": torch.ones(1, 1, dtype=dtype)}
        train_step(model, batch, optimizer, scheduler, grad_clip_norm=0.0, precision=precision)
        return model.weight.item()

    assert after(torch.bfloat16) == 1.0
    assert after(torch.float32) == pytest.approx(1 - 1e-5, abs=1e-7)


def test_the_checkpoint_keeps_float32_weights(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    _, policy, _ = _losses("float32", "bf16")
    policy.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float32}
