# SPDX-License-Identifier: Apache-2.0
"""Cross entropy of a language model's head without ever holding all its logits.

A vocabulary of 257,152 makes a gigabyte of float32 logits out of a thousand tokens. Here they are
made for a few rows at a time, and their gradients are taken at once while the rows are at hand, so
that three matrix products suffice, as for the plain way. Technique: Liger Kernel, arXiv 2410.10989.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LOGITS_AT_A_TIME = 2**25
"""Entries: 128 MiB of float32, held twice."""


def head_cross_entropy(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    weights: Tensor,
    *,
    logits_at_a_time: int = LOGITS_AT_A_TIME,
) -> Tensor:
    """Return the weighted sum of -log p(target), a float32 scalar.

    Logits have the type of the head, or that of autocast; softmax and sum are float32.

    Args:
        hidden: (tokens, width).
        head: (vocabulary, width).
        targets: (tokens,) ids.
        weights: (tokens,) float32, without gradient.
        logits_at_a_time: most entries of a block of logits.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else head.dtype
    rows = max(1, logits_at_a_time // head.shape[0])
    wants_gradient = torch.is_grad_enabled()
    with torch.autocast(kind, enabled=False):
        return _HeadCrossEntropy.apply(
            hidden.to(dtype), head.to(dtype), targets, weights, rows, wants_gradient
        )


class _HeadCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        weights: Tensor,
        rows: int,
        wants_gradient: bool,
    ) -> Tensor:
        wants_hidden, wants_head = (wants_gradient and need for need in ctx.needs_input_grad[:2])
        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_head = torch.empty_like(head) if wants_head else None
        total = torch.zeros((), device=hidden.device)
        for start in range(0, max(hidden.shape[0], 1), rows):  # an empty block zeroes gradients
            block = slice(start, start + rows)
            # torch's own: a hand-made one rounds where p is nearly 1, and so where little is left.
            log_p = F.log_softmax(F.linear(hidden[block], head).float(), dim=1)
            total -= (log_p.gather(1, targets[block, None]).squeeze(1) * weights[block]).sum()
            if not (wants_hidden or wants_head):
                continue
            gradient = _logit_gradient(log_p, targets[block], weights[block]).to(head.dtype)
            if grad_hidden is not None:
                torch.mm(gradient, head, out=grad_hidden[block])
            if grad_head is not None:
                grad_head.addmm_(gradient.T, hidden[block], beta=min(start, 1))  # 0: overwrites
        ctx.gradients = (grad_hidden, grad_head)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        gradients, ctx.gradients = ctx.gradients, None  # kept by nobody else: scaled in place
        if gradients is None:
            raise RuntimeError("the backward pass of head_cross_entropy can run only once")
        # The usual factor is 1; reading it from a GPU would cost more than the product.
        if factor.device.type != "cpu" or factor.item() != 1.0:
            for gradient in gradients:
                if gradient is not None:
                    gradient.mul_(factor)
        return *gradients, None, None, None, None


def _logit_gradient(log_p: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return (p - one_hot(target)) * weight, in the memory of log p."""
    minus_one = torch.full_like(weights, -1.0)[:, None].to(log_p.dtype)
    return log_p.exp_().scatter_add_(1, targets[:, None], minus_one).mul_(weights[:, None])
