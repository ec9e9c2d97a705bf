# SPDX-License-Identifier: Apache-2.0
"""One optimiser step: forward, backward, clip, update, next learning rate."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor


class Trainable(Protocol):
    """What a step needs of a policy."""

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
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
    metrics: dict[str, float] = field(default_factory=dict)


def autocast(device: torch.device, dtype_name: str) -> AbstractContextManager[Any]:
    """Return the mixed-precision context of a policy dtype.

    Only `bfloat16` switches it on; `auto` and `float32` compute in the weights' own dtype.
    Source: lerobot 0.6.1 derives its mixed precision from `policy.dtype` in the same way.
    """
    if dtype_name == "bfloat16":
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
) -> StepResult:
    """Update the policy's weights with one batch.

    Args:
        policy: Its `forward` returns the loss, shape (), and numbers to log.
        batch: A preprocessed batch.
        optimizer: Over the policy's parameters.
        scheduler: Advanced once, after the update.
        grad_clip_norm: Largest norm of all gradients together; 0 leaves them as they are.
        precision: Context of the forward pass, see `autocast`.
    """
    lr = optimizer.param_groups[0]["lr"]
    with precision:
        loss, metrics = policy.forward(batch)
    loss.backward()
    limit = grad_clip_norm if grad_clip_norm > 0 else float("inf")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    grad_norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    scheduler.step()
    return StepResult(loss.detach(), grad_norm, lr, metrics)
