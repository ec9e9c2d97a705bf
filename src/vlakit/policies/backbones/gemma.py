# SPDX-License-Identifier: Apache-2.0
"""Gemma, the language model of PaliGemma: grouped queries, rotary positions, any visibility."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlakit.policies.backbones.attention import attend
from vlakit.policies.backbones.kv_cache import KVCache
from vlakit.policies.backbones.layers import (
    GatedMLP,
    Recompute,
    inverse_frequencies,
    rotate,
    run_block,
    take_columns,
)
from vlakit.policies.backbones.paligemma_config import GemmaSizes

_PAD_ID = 0
"""Of Gemma's vocabulary."""


@dataclass(frozen=True)
class Span:
    """Queries that stand together, and what they see."""

    end: int
    """One past their last column; they begin where the span before them ends."""
    keys: int
    """They see no key from this column on."""
    mask: Tensor | None = None
    """True where visible, broadcastable to (batch, 1, queries, keys); None where all are."""


@dataclass(frozen=True)
class Wanted:
    """Columns whose output is asked for; the last layer computes no others."""

    columns: Tensor
    """(batch, n)"""
    mask: Tensor | None
    """Which keys they see, broadcastable to (batch, 1, n, keys); None where they see all."""


@dataclass(frozen=True)
class Visibility:
    """What the layers of one forward pass share."""

    cos: Tensor
    """(batch, length, head_dim), in the type of the embeddings."""
    sin: Tensor
    spans: tuple[Span, ...]
    cache: KVCache | None
    columns: Tensor | None = None
    """(batch, n) the wanted ones; None for all."""

    def asking(self, x: Tensor) -> Tensor:
        """Return the wanted columns of x, (batch, n, width)."""
        return x if self.columns is None else take_columns(x, self.columns)


class GemmaRMSNorm(nn.Module):
    """Divide by the root mean square over the last axis, then scale by 1 + weight, in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., size) in the type of x."""
        scale = 1.0 + self.weight.float()
        return F.rms_norm(x.float(), scale.shape, scale, self.eps).to(x.dtype)


class GemmaAttention(nn.Module):
    """Attention with fewer key heads than query heads."""

    def __init__(self, sizes: GemmaSizes, layer: int) -> None:
        super().__init__()
        width = sizes.hidden_size
        q_width = sizes.num_attention_heads * sizes.head_dim
        kv_width = sizes.num_key_value_heads * sizes.head_dim
        self.q_proj = nn.Linear(width, q_width, bias=False)
        self.k_proj = nn.Linear(width, kv_width, bias=False)
        self.v_proj = nn.Linear(width, kv_width, bias=False)
        self.o_proj = nn.Linear(q_width, width, bias=False)
        self.head_dim, self.layer = sizes.head_dim, layer

    def forward(self, x: Tensor, shared: Visibility) -> Tensor:
        """Return (batch, queries, hidden_size) from all tokens, (batch, length, hidden_size)."""
        angles = (shared.cos, shared.sin)
        q = self._turned(self.q_proj(shared.asking(x)), *(shared.asking(part) for part in angles))
        k, v = self._turned(self.k_proj(x), *angles), self._heads(self.v_proj(x))
        if shared.cache is not None:
            k, v = shared.cache.write(self.layer, k, v)
        parts, start = [], 0
        for span in shared.spans:
            seen_k, seen_v = k[:, :, : span.keys], v[:, :, : span.keys]
            asked = q[:, :, start : span.end]
            parts.append(attend(asked, seen_k, seen_v, kind="sdpa", mask=span.mask))
            start = span.end
        return self.o_proj(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))

    def _heads(self, x: Tensor) -> Tensor:
        """(batch, length, width) -> (batch, heads, length, head_dim)."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return rotate(self._heads(x), cos[:, None], sin[:, None])


class GemmaLayer(nn.Module):
    """Pre-norm attention and gated MLP."""

    def __init__(self, sizes: GemmaSizes, layer: int) -> None:
        super().__init__()
        width = sizes.hidden_size
        self.self_attn = GemmaAttention(sizes, layer)
        self.mlp = GatedMLP(width, sizes.intermediate_size, "gelu_pytorch_tanh", bias=False)
        self.input_layernorm = GemmaRMSNorm(width, sizes.rms_norm_eps)
        self.post_attention_layernorm = GemmaRMSNorm(width, sizes.rms_norm_eps)

    def forward(self, x: Tensor, shared: Visibility) -> Tensor:
        """Return (batch, queries, hidden_size) from all tokens, (batch, length, hidden_size)."""
        x = shared.asking(x) + self.self_attn(self.input_layernorm(x), shared)
        return x + self.mlp(self.post_attention_layernorm(x))


class GemmaModel(nn.Module):
    """Embeddings in, last hidden states out."""

    def __init__(self, sizes: GemmaSizes) -> None:
        super().__init__()
        # The plain constructor draws values, which on the meta device loads torch's compiler: 1 s.
        table = torch.empty(sizes.vocab_size, sizes.hidden_size)
        # Parity: the vector of padding is not trained, also where a text spells "<pad>".
        self.embed_tokens = nn.Embedding.from_pretrained(table, freeze=False, padding_idx=_PAD_ID)
        self.layers = nn.ModuleList(
            GemmaLayer(sizes, layer) for layer in range(sizes.num_hidden_layers)
        )
        self.norm = GemmaRMSNorm(sizes.hidden_size, sizes.rms_norm_eps)
        self.sizes = sizes
        self.recompute: Recompute = "none"

    def embed(self, ids: Tensor) -> Tensor:
        """Return (..., hidden_size) in the storage type: table rows times sqrt(hidden_size)."""
        # Parity: the factor is rounded to the storage type too, 45.25 in place of 45.2548.
        scale = torch.tensor(self.sizes.hidden_size**0.5, dtype=self.embed_tokens.weight.dtype)
        return self.embed_tokens(ids) * scale.item()

    def forward(
        self,
        embeddings: Tensor,
        angles: tuple[Tensor, Tensor],
        spans: Sequence[Span],
        *,
        cache: KVCache | None = None,
        wanted: Wanted | None = None,
    ) -> Tensor:
        """Run the layers.

        Args:
            embeddings: (batch, length, hidden_size).
            angles: cosines and sines of the tokens' positions, see `rotary`.
            spans: what each of the tokens sees, in their order.
            cache: earlier keys and values, which the new ones join.
            wanted: columns whose hidden states are returned; None for all.

        Returns:
            (batch, length or n, hidden_size), after the final norm.
        """
        cos, sin = (part.to(embeddings.dtype) for part in angles)
        shared = Visibility(cos, sin, tuple(spans), cache)
        x = embeddings
        for layer in self.layers[:-1]:
            x = run_block(layer, x, shared, recompute=self.recompute)
        if wanted is not None:
            span = Span(wanted.columns.shape[1], spans[-1].keys, wanted.mask)
            shared = dataclasses.replace(shared, spans=(span,), columns=wanted.columns)
        return self.norm(run_block(self.layers[-1], x, shared, recompute=self.recompute))

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines, each (batch, length, head_dim) float32.

        Args:
            positions: (batch, length).
        """
        sizes = self.sizes
        frequencies = inverse_frequencies(sizes.head_dim // 2, sizes.rope_theta, positions.device)
        angles = (positions[..., None].float() * frequencies).repeat(1, 1, 2)
        return angles.cos(), angles.sin()

    def new_cache(self, batch_size: int, length: int) -> KVCache:
        """Return an empty cache in the storage type and on the device of the weights."""
        weight = self.embed_tokens.weight
        return KVCache(
            num_layers=self.sizes.num_hidden_layers,
            batch_size=batch_size,
            num_heads=self.sizes.num_key_value_heads,
            length=length,
            head_dim=self.sizes.head_dim,
            dtype=weight.dtype,
            device=weight.device,
        )
