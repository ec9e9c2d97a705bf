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
from vlakit.policies.backbones.decoder_stack import DecoderStack, GroupedProjections
from vlakit.policies.backbones.kv_cache import KVCache, LayerCache
from vlakit.policies.backbones.layers import (
    GatedMLP,
    inverse_frequencies,
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


class GemmaAttention(GroupedProjections):
    """Attention with fewer key heads than query heads."""

    def __init__(self, sizes: GemmaSizes) -> None:
        super().__init__(
            sizes.hidden_size,
            num_heads=sizes.num_attention_heads,
            num_kv_heads=sizes.num_key_value_heads,
            head_dim=sizes.head_dim,
            bias=False,
        )

    def forward(self, x: Tensor, shared: Visibility, cache: LayerCache | None = None) -> Tensor:
        """Return (batch, queries, hidden_size) from all tokens, (batch, length, hidden_size)."""
        q, k, v = self.project(x, shared, cache)
        parts, start = [], 0
        for span in shared.spans:
            seen_k, seen_v = k[:, :, : span.keys], v[:, :, : span.keys]
            asked = q[:, :, start : span.end]
            parts.append(attend(asked, seen_k, seen_v, kind="sdpa", mask=span.mask))
            start = span.end
        return self.o_proj(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))


class GemmaLayer(nn.Module):
    """Pre-norm attention and gated MLP."""

    def __init__(self, sizes: GemmaSizes) -> None:
        super().__init__()
        width = sizes.hidden_size
        self.self_attn = GemmaAttention(sizes)
        self.mlp = GatedMLP(width, sizes.intermediate_size, "gelu_pytorch_tanh", bias=False)
        self.input_layernorm = GemmaRMSNorm(width, sizes.rms_norm_eps)
        self.post_attention_layernorm = GemmaRMSNorm(width, sizes.rms_norm_eps)

    def forward(self, x: Tensor, shared: Visibility, cache: LayerCache | None = None) -> Tensor:
        """Return (batch, queries, hidden_size) from all tokens, (batch, length, hidden_size)."""
        x = shared.asking(x) + self.self_attn(self.input_layernorm(x), shared, cache)
        uses_joined = cache is not None and cache.uses_joined
        return x + self.mlp(self.post_attention_layernorm(x), uses_joined=uses_joined)


class GemmaModel(DecoderStack[GemmaSizes]):
    """Embeddings in, last hidden states out."""

    def __init__(self, sizes: GemmaSizes) -> None:
        super().__init__()
        # The plain constructor draws values, which on the meta device loads torch's compiler: 1 s.
        table = torch.empty(sizes.vocab_size, sizes.hidden_size)
        # Parity: the vector of padding is not trained, also where a text spells "<pad>".
        self.embed_tokens = nn.Embedding.from_pretrained(table, freeze=False, padding_idx=_PAD_ID)
        self.layers = nn.ModuleList(GemmaLayer(sizes) for _ in range(sizes.num_hidden_layers))
        self.norm = GemmaRMSNorm(sizes.hidden_size, sizes.rms_norm_eps)
        self.sizes = sizes

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
        shared = Visibility(cos, sin, tuple(spans))
        last = shared
        if wanted is not None:
            span = Span(wanted.columns.shape[1], spans[-1].keys, wanted.mask)
            last = dataclasses.replace(shared, spans=(span,), columns=wanted.columns)
        return self.norm(self.run_layers(embeddings, shared, last, cache))

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines, each (batch, length, head_dim) float32.

        Args:
            positions: (batch, length).
        """
        sizes = self.sizes
        frequencies = inverse_frequencies(sizes.head_dim // 2, sizes.rope_theta, positions.device)
        angles = (positions[..., None].float() * frequencies).repeat(1, 1, 2)
        return angles.cos(), angles.sin()
