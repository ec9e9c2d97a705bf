# SPDX-License-Identifier: Apache-2.0
"""One optimiser step: forward, backward, clip, update, next learning rate."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from vlakit.training.profile import Timer, untimed


class Trainable(Protocol):
    """What a step needs of a policy."""

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Return the loss, shape (), and numbers for the log."""
        ...

    def parameters(self) -> Any: ...


@dataclass
class StepResult:
    """Numbers of one step; tensors stay on the device until somebody logs them."""

    loss: Tensor  # ()
    grad_norm: Tensor  # (), before clipping
    lr: float
    """Learning rate in effect for this step."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Numbers, or tensors of shape ()."""


def autocast(
    device: torch.device, dtype_name: str, mixed_precision: str | None = None
) -> AbstractContextManager[Any]:
    """Return the context that a forward pass runs in.

    Args:
        device: of the policy.
        dtype_name: the policy's `dtype`.
        mixed_precision: `bf16` computes products in bfloat16 whatever type the weights have, `no`
            in the weights' own. None is `bf16` for the dtype `bfloat16` and `no` for others, as
            lerobot 0.6.1 derives it; 0.6.2 has the flag.
    """
    if mixed_precision is None:
        mixed_precision = "bf16" if dtype_name == "bfloat16" else "no"
    if mixed_precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def train_step(
    policy: Trainable,
    batch: dict[str, Any],
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    *,
    grad_clip_norm: float,
    precision: AbstractContextManager[Any],
    timer: Timer = untimed,
) -> StepResult:
    """Update the policy's weights with one batch.

    Args:
        policy: Its `forward` returns the loss, shape (), and numbers to log.
        batch: A preprocessed batch.
        optimizer: Over the policy's parameters.
        scheduler: Advanced once, after the update.
        grad_clip_norm: Largest norm of all gradients together; 0 leaves them as they are.
        precision: Context of the forward pass, see `autocast`.
        timer: Contexts of the step's phases.
    """
    lr = optimizer.param_groups[0]["lr"]
    with timer("forward"), precision:
        loss, metrics = policy.forward(batch)
    with timer("backward"):
        loss.backward()
    with timer("optimizer"):
        limit = grad_clip_norm if grad_clip_norm > 0 else float("inf")
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        grad_norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        scheduler.step()
    return StepResult(loss.detach(), grad_norm, lr, metrics)
