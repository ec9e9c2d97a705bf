# SPDX-License-Identifier: Apache-2.0
"""Scaled dot-product attention: torch's kernel, plain matrix products, or flash_attn."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

AttentionKind = Literal["sdpa", "eager", "flash_attention_2"]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    kind: AttentionKind,
    mask: Tensor | None = None,
    is_real: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    """Attend with grouped keys and values.

    Args:
        q: (batch, heads, queries, head_dim).
        k: (batch, kv_heads, keys, head_dim); kv_heads divides heads.
        v: like k.
        kind: which implementation computes it. flash_attention_2 takes no mask.
        mask: boolean, True where a query may look at a key; broadcastable to
            (batch, 1, queries, keys). Or `as_bias` of one, for few queries over a long cache.
            Takes the place of `causal`, and must where there are fewer
            queries than keys.
        is_real: (batch, keys), nonzero where a key is not padding; for flash_attention_2 only.
        causal: the queries are the last positions, and none sees a later key.
        dropout: probability of dropping an attention weight.

    Returns:
        (batch, queries, heads * head_dim).
    """
    q, k = q.to(v.dtype), k.to(v.dtype)  # mixed precision leaves the rotated ones in float32
    if kind == "flash_attention_2":
        return _flash(q, k, v, is_real=is_real, causal=causal, dropout=dropout)
    causal = causal and mask is None
    if mask is not None and mask.is_floating_point():
        return _few_queries(q, k, v, bias=mask).transpose(1, 2).flatten(2)
    if kind == "eager":
        out = _eager(q, k, v, mask=mask, causal=causal, dropout=dropout)
    elif q.shape[2] == 1 and q.shape[1] != k.shape[1]:
        out = _one_query(q, k, v, mask=mask, dropout=dropout)
    else:
        grouped = bool(q.shape[1] != k.shape[1])  # no bool while torch.compile traces
        if grouped and not takes_groups(q.device.type, q.dtype, has_mask=mask is not None):
            k, v = (_per_query_head(part, q.shape[1]) for part in (k, v))
            grouped = False
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, dropout_p=dropout, enable_gqa=grouped
        )
    return out.transpose(1, 2).flatten(2)


def takes_groups(device_type: str, dtype: torch.dtype, *, has_mask: bool) -> bool:
    """Return whether torch has a fused kernel in which several query heads share a key head.

    On CUDA only flash attention is one, and that takes neither a mask nor float32. The others want
    as many key heads as query heads; asked for groups, torch would fall back to plain products
    that hold all attention weights. Source: aten/native/transformers/cuda/sdp_utils.cpp, torch 2.13
    (`check_batch_size_and_num_heads_dense`).
    """
    return device_type != "cuda" or (not has_mask and dtype in (torch.float16, torch.bfloat16))


def _per_query_head(x: Tensor, heads: int) -> Tensor:
    """Repeat key heads, (batch, kv_heads, keys, head_dim); no copy where there is only one."""
    repeated = x[:, :, None].expand(-1, -1, heads // x.shape[1], -1, -1)
    return repeated.flatten(1, 2)


def _one_query(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, dropout: float) -> Tensor:
    """Let the heads that share a key head be its queries: one product in the place of several."""
    folded = q.view(q.shape[0], k.shape[1], -1, q.shape[-1])  # (batch, kv_heads, group, head_dim)
    out = F.scaled_dot_product_attention(folded, k, v, attn_mask=mask, dropout_p=dropout)
    return out.reshape(q.shape)


def as_bias(mask: Tensor) -> Tensor:
    """Return what a boolean mask adds to scores, float32: nothing, or -infinity."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -torch.inf)


def _few_queries(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor) -> Tensor:
    """Attend by plain products, with the heads that share a key head as its queries.

    With few queries a fused kernel leaves all keys of a head to one multiprocessor of a GPU: 52
    instead of 12 us for the 8 queries and 630 keys of a step of pi0-FAST on an H200.
    """
    batch, heads, queries, width = q.shape
    folded = q.reshape(batch, k.shape[1], -1, width)  # (batch, kv_heads, group * queries, width)
    scores = (folded @ k.transpose(-1, -2)).unflatten(2, (-1, queries))
    weights = torch.softmax(torch.add(bias[:, :, None], scores, alpha=width**-0.5), dim=-1)
    return (weights.to(v.dtype).flatten(2, 3) @ v).view(batch, heads, queries, width)


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


def _flash(
    q: Tensor, k: Tensor, v: Tensor, *, is_real: Tensor | None, causal: bool, dropout: float
) -> Tensor:
    """Call flash_attn, whose layout is (batch, positions, heads, head_dim)."""
    from flash_attn import flash_attn_func  # pyrefly: ignore[missing-import]

    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if is_real is None:
        return flash_attn_func(q, k, v, dropout_p=dropout, causal=causal).flatten(2)
    return _flash_padded(q, k, v, is_real.bool(), causal, dropout)


def _flash_padded(
    q: Tensor, k: Tensor, v: Tensor, is_real: Tensor, causal: bool, dropout: float
) -> Tensor:
    """Pack the real positions of all rows, as flash_attn has no padding mask; padding gives 0."""
    from flash_attn import flash_attn_varlen_func  # pyrefly: ignore[missing-import]

    asks = is_real[:, -q.shape[1] :]
    lengths_q, lengths_k = asks.sum(1, dtype=torch.int32), is_real.sum(1, dtype=torch.int32)
    packed = flash_attn_varlen_func(
        q[asks],
        k[is_real],
        v[is_real],
        cu_seqlens_q=F.pad(lengths_q.cumsum(0, dtype=torch.int32), (1, 0)),
        cu_seqlens_k=F.pad(lengths_k.cumsum(0, dtype=torch.int32), (1, 0)),
        max_seqlen_q=int(lengths_q.max()),
        max_seqlen_k=int(lengths_k.max()),
        dropout_p=dropout,
        causal=causal,
    )
    return torch.zeros_like(q).index_put((asks,), packed).flatten(2)
