# SPDX-License-Identifier: Apache-2.0
"""How a transformer's layer is called: as it is, compiled, or with less kept for its gradient."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

Recompute = Literal["none", "layer", "selective"]
"""What the backward pass computes anew (activation checkpointing).

none keeps every intermediate result, layer only the inputs of the blocks. selective keeps the
results of matrix products and attention, and repeats what is cheap: norms, activations, rotary.
"""

_IN_TRAINING, _AT_FIXED_SHAPES = "_in_training", "_at_fixed_shapes"
"""Attributes of a block that hold its compiled forms."""
_aten = torch.ops.aten
_PRODUCTS = frozenset(
    {
        _aten.mm.default,
        _aten.addmm.default,
        _aten._scaled_dot_product_flash_attention.default,
        _aten._scaled_dot_product_efficient_attention.default,
        _aten._scaled_dot_product_cudnn_attention.default,
        _aten._scaled_dot_product_flash_attention_for_cpu.default,
    }
)


def compile_block(block: nn.Module, mode: str) -> None:
    """Compile a transformer's layer with torch.compile at its first use.

    As a whole for training, where lengths that change compile nothing anew, and for prediction at
    fixed shapes. Other prediction has other lengths at every step; there the parts without
    attention are compiled, each by itself.

    Args:
        block: run by `run_block`.
        mode: torch.compile's, such as `default` or `max-autotune`.
    """
    if next(block.parameters()).device.type == "cpu":
        # Compiled with lengths that change, the backward pass of the CPU's kernel stops on a wrong
        # stride (torch 2.13). So attention stays out of the graph, which goes on behind it.
        torch._dynamo.disallow_in_graph(F.scaled_dot_product_attention)
    setattr(block, _IN_TRAINING, torch.compile(block._call_impl, mode=mode, dynamic=True))
    # Prediction may itself be recorded as a graph, which must not hold another one.
    inner = {"max-autotune": "max-autotune-no-cudagraphs", "reduce-overhead": "default"}
    mode = inner.get(mode, mode)
    setattr(block, _AT_FIXED_SHAPES, torch.compile(block._call_impl, mode=mode, dynamic=False))
    for name, part in block.named_children():
        if "attn" not in name:
            part.compile(mode=mode)


def run_block(
    block: nn.Module, *args: object, recompute: Recompute, is_fixed: bool = False
) -> Tensor:
    """Call a block; where a gradient is taken, the backward pass repeats what `recompute` says.

    Args:
        block: the block.
        *args: its arguments.
        recompute: see `Recompute`.
        is_fixed: their shapes are among few, see `recorded`.
    """
    if not (block.training and torch.is_grad_enabled()):
        return getattr(block, _AT_FIXED_SHAPES, block)(*args) if is_fixed else block(*args)
    call = getattr(block, _IN_TRAINING, block)
    if recompute == "none":
        return call(*args)
    if recompute == "layer":
        return checkpoint(call, *args, use_reentrant=False)
    contexts = partial(create_selective_checkpoint_contexts, _keep_products)
    return checkpoint(call, *args, use_reentrant=False, context_fn=contexts)


def _keep_products(_context: Any, op: Any, *_args: Any, **_kwargs: Any) -> CheckpointPolicy:
    if op in _PRODUCTS:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
