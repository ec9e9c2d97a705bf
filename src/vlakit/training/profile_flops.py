# SPDX-License-Identifier: Apache-2.0
"""How much arithmetic a step is, and how much of it the device could do at best."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from vlakit.checkpoints.random_state import kept_random_state
from vlakit.policies.base import Policy

_aten = torch.ops.aten
_ATTENTION = (
    _aten._scaled_dot_product_flash_attention,
    _aten._scaled_dot_product_efficient_attention,
    _aten._scaled_dot_product_cudnn_attention,
    _aten._scaled_dot_product_flash_attention_for_cpu,
)
_SIDE = {"cuda": 8192}
"""Rows and columns of the matrices that are multiplied to find the rate."""
_OTHER_SIDE = 1024
_REPEATS = 5


@torch.no_grad()
def forward_flops(
    policy: Policy,
    batch: Mapping[str, Any],
    precision: Callable[[], AbstractContextManager[Any]],
) -> int:
    """Count the floating-point operations of the products in one forward pass of the loss.

    A training step is three times that: the backward pass has two products for each. What is
    recomputed to save memory does not count, as it is usual for MFU (PaLM, arXiv 2204.02311,
    appendix B). Causal attention counts in full. The random numbers stay as they were.
    """
    counter = FlopCounterMode(
        display=False, custom_mapping=dict.fromkeys(_ATTENTION, _attention_flops)
    )
    with kept_random_state(), torch.compiler.set_stance("force_eager"), counter, precision():
        policy.forward(batch)
    return counter.get_total_flops()


def _attention_flops(
    q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], *_: Any, **__: Any
) -> int:
    """Return the operations of q k^T and of the weights times v; heads may share keys."""
    batch, heads, queries, head_dim = q
    return 2 * batch * heads * queries * k[2] * (head_dim + v[-1])


@torch.no_grad()
def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations per second of a large matrix product, the best of a few."""
    side = _SIDE.get(device.type, _OTHER_SIDE)
    factor = torch.ones(side, side, dtype=dtype, device=device)
    product = torch.empty_like(factor)
    seconds = []
    for _ in range(_REPEATS + 1):  # the first one warms up
        _wait(device)
        started = time.perf_counter()
        torch.mm(factor, factor, out=product)
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
