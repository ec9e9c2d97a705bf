# SPDX-License-Identifier: Apache-2.0
"""Causal attention inside the segments of one packed row: block-diagonal, and no mask is built.

Segments of equal length that stand together are one batch of an ordinary causal attention; where
they are sorted by length there is one call per length, and if all are equal a single one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from vlakit.policies.backbones.attention import AttentionKind, attend


@dataclass(frozen=True)
class Segments:
    """How the tokens of a row fall into segments, none of which sees another."""

    keys: tuple[int, ...]
    """Tokens of each segment, in the row's order."""
    queries: tuple[int, ...]
    """How many of them ask where not all do: the last ones of each segment."""

    def asking_all(self) -> Segments:
        """Return the same segments, of which every token asks."""
        return Segments(self.keys, self.keys)


def attend_segments(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segments: Segments,
    *,
    kind: AttentionKind,
    dropout: float = 0.0,
) -> Tensor:
    """Attend causally inside each segment.

    Args:
        q: (1, heads, queries of all segments, head_dim).
        k: (1, kv_heads, keys of all segments, head_dim).
        v: like k.
        segments: whose queries and keys these are.
        kind: which implementation computes it.
        dropout: probability of dropping an attention weight.

    Returns:
        (1, queries, heads * head_dim).
    """
    if kind == "flash_attention_2":
        return _flash(q, k, v, segments, dropout)
    # Each run: (queries per segment, keys per segment), and how many such segments there are.
    pairs = zip(segments.queries, segments.keys, strict=True)
    runs = [(*sizes, len(list(same))) for sizes, same in groupby(pairs)]
    in_queries = [queries * count for queries, _, count in runs]
    in_keys = [keys * count for _, keys, count in runs]
    pieces = zip(q.split(in_queries, 2), k.split(in_keys, 2), v.split(in_keys, 2), strict=True)
    parts = [
        attend(
            *(_separated(x, count) for x in piece),
            kind=kind,
            mask=None if queries == keys else _last_rows(queries, keys, q.device),
            causal=True,
            dropout=dropout,
        ).flatten(0, 1)
        for piece, (queries, keys, count) in zip(pieces, runs, strict=True)
    ]
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[None]


def _separated(x: Tensor, count: int) -> Tensor:
    """(1, heads, count * length, head_dim) -> (count, heads, length, head_dim)."""
    return x.unflatten(2, (count, -1))[0].transpose(0, 1)


def _last_rows(queries: int, keys: int, device: torch.device) -> Tensor:
    """Return the causal mask of the last queries, (queries, keys)."""
    mask = torch.ones(queries, keys, dtype=torch.bool, device=device)
    return mask.tril(keys - queries)


def _flash(q: Tensor, k: Tensor, v: Tensor, segments: Segments, dropout: float) -> Tensor:
    """Call flash_attn, which takes packed rows as they are and counts from the last key back."""
    from flash_attn import flash_attn_varlen_func  # pyrefly: ignore[missing-import]

    q, k, v = (x[0].transpose(0, 1).to(v.dtype) for x in (q, k, v))  # (tokens, heads, head_dim)
    out = flash_attn_varlen_func(
        q,
        k,
        v,
        cu_seqlens_q=_starts(segments.queries, q.device),
        cu_seqlens_k=_starts(segments.keys, q.device),
        max_seqlen_q=max(segments.queries),
        max_seqlen_k=max(segments.keys),
        dropout_p=dropout,
        causal=True,
    )
    return out.flatten(1)[None]


def _starts(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Return where each segment starts, and the end of the last, int32."""
    ends = torch.tensor(lengths, device=device).cumsum(0, dtype=torch.int32)
    return F.pad(ends, (1, 0))
