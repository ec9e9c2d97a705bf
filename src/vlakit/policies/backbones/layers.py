# SPDX-License-Identifier: Apache-2.0
"""Building blocks of the transformers: norm, gated MLP, rotary embedding, attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vlakit.errors import ConfigError, did_you_mean

AttentionKind = Literal["sdpa", "eager", "flash_attention_2"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "identity": nn.Identity,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "gelu": nn.GELU,
    "gelu_new": lambda: nn.GELU(approximate="tanh"),
    "gelu_pytorch_tanh": lambda: nn.GELU(approximate="tanh"),
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "mish": nn.Mish,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}
"""Activations by Hugging Face's names."""


def activation(name: str) -> nn.Module:
    """Return the activation with Hugging Face's name.

    Raises:
        ConfigError: when there is none of that name.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(
            f"activation {name!r} is unknown; expected one of {', '.join(ACTIVATIONS)}."
            f"{did_you_mean(name, ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]()


class RMSNorm(nn.Module):
    """Divide by the root mean square over the last axis, in float32, then scale."""

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        # Rounding to the storage type comes before the scale: bfloat16 results depend on the order.
        return self.weight * normed.to(x.dtype)


class GatedMLP(nn.Module):
    """down(act(gate(x)) * up(x))."""

    def __init__(self, size: int, inner_size: int, act: str, *, bias: bool) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size, inner_size, bias=bias)
        self.up_proj = nn.Linear(size, inner_size, bias=bias)
        self.down_proj = nn.Linear(inner_size, size, bias=bias)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (first half, second half) of the last axis by its angle.

    Args:
        x: (..., head_dim).
        cos: cosines, broadcastable to x, each half repeating the same angles.
        sin: sines, likewise.
    """
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def inverse_frequencies(count: int, theta: float, device: torch.device) -> Tensor:
    """Return `count` rotary frequencies theta^(-i/count), float32, shape (count,)."""
    exponents = torch.arange(0, 2 * count, 2, dtype=torch.int64, device=device).float() / (
        2 * count
    )
    return 1.0 / theta**exponents


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    kind: AttentionKind,
    mask: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    """Scaled dot-product attention with grouped keys and values.

    Args:
        q: (batch, heads, queries, head_dim).
        k: (batch, kv_heads, keys, head_dim); kv_heads divides heads.
        v: like k.
        kind: which implementation computes it.
        mask: boolean, True where a query may look at a key; broadcastable to
            (batch, 1, queries, keys). Excludes `causal`.
        causal: key j is visible to query i when j <= i; needs as many keys as queries.
        dropout: probability of dropping an attention weight.

    Returns:
        (batch, queries, heads * head_dim).
    """
    q, k = q.to(v.dtype), k.to(v.dtype)  # mixed precision leaves the rotated ones in float32
    if kind == "flash_attention_2" and mask is None:
        return _flash(q, k, v, causal=causal, dropout=dropout)
    if kind == "eager":
        out = _eager(q, k, v, mask=mask, causal=causal, dropout=dropout)
    else:
        grouped = q.shape[1] != k.shape[1]
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, dropout_p=dropout, enable_gqa=grouped
        )
    return out.transpose(1, 2).flatten(2)


def _eager(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, causal: bool, dropout: float
) -> Tensor:
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # (batch, heads, queries, keys)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    return F.dropout(weights, dropout) @ v


def _flash(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, dropout: float) -> Tensor:
    from flash_attn import flash_attn_func  # pyrefly: ignore[missing-import]

    out = flash_attn_func(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), dropout_p=dropout, causal=causal
    )
    return out.flatten(2)


def run_block(block: nn.Module, *args: object, recompute: bool) -> Tensor:
    """Run a block, keeping only its input for the backward pass when `recompute` is set."""
    if recompute:
        return checkpoint(block, *args, use_reentrant=False)
    return block(*args)
