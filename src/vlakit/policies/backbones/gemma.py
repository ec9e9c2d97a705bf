# SPDX-License-Identifier: Apache-2.0
"""Gemma, the language model of PaliGemma: grouped queries, rotary positions, any visibility."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlakit.policies.backbones.attention import attend
from vlakit.policies.backbones.kv_cache import KVCache, LayerCache
from vlakit.policies.backbones.layers import (
    GatedMLP,
    JoinedMaps,
    Recompute,
    inverse_frequencies,
    rotate,
    run_block,
    take_columns,
)
from vlakit.policies.backbones.paligemma_config import GemmaSizes
from vlakit.policies.backbones.quantized import is_quantized

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


class GemmaAttention(nn.Module):
    """Attention with fewer key heads than query heads."""

    def __init__(self, sizes: GemmaSizes) -> None:
        super().__init__()
        width = sizes.hidden_size
        q_width = sizes.num_attention_heads * sizes.head_dim
        kv_width = sizes.num_key_value_heads * sizes.head_dim
        self.q_proj = nn.Linear(width, q_width, bias=False)
        self.k_proj = nn.Linear(width, kv_width, bias=False)
        self.v_proj = nn.Linear(width, kv_width, bias=False)
        self.o_proj = nn.Linear(q_width, width, bias=False)
        self.head_dim, self.num_kv_heads = sizes.head_dim, sizes.num_key_value_heads
        self.joined: JoinedMaps | None = None

    def join_weights(self) -> None:
        """Let `forward` compute queries, keys and values at once where it is allowed to."""
        self.joined = JoinedMaps(self.q_proj, self.k_proj, self.v_proj)

    def forward(self, x: Tensor, shared: Visibility, cache: LayerCache | None = None) -> Tensor:
        """Return (batch, queries, hidden_size) from all tokens, (batch, length, hidden_size)."""
        if self.joined is not None and cache is not None and cache.uses_joined:
            q, k, v = self._all_at_once(self.joined, x, shared)
        else:
            angles = (shared.cos, shared.sin)
            asking = (shared.asking(part) for part in angles)
            q = self._turned(self.q_proj(shared.asking(x)), *asking)
            k, v = self._turned(self.k_proj(x), *angles), self._heads(self.v_proj(x))
        if cache is not None:
            k, v = cache.write(k, v)
        parts, start = [], 0
        for span in shared.spans:
            seen_k, seen_v = k[:, :, : span.keys], v[:, :, : span.keys]
            asked = q[:, :, start : span.end]
            parts.append(attend(asked, seen_k, seen_v, kind="sdpa", mask=span.mask))
            start = span.end
        return self.o_proj(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))

    def _all_at_once(
        self, joined: JoinedMaps, x: Tensor, shared: Visibility
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values by one product and one turn."""
        heads = self._heads(joined(x))
        num_queries = heads.shape[1] - 2 * self.num_kv_heads
        turned = rotate(heads[:, : -self.num_kv_heads], shared.cos[:, None], shared.sin[:, None])
        q, k = turned.split([num_queries, self.num_kv_heads], dim=1)
        q = self._heads(shared.asking(q.transpose(1, 2).flatten(2)))
        return q, k, heads[:, -self.num_kv_heads :]

    def _heads(self, x: Tensor) -> Tensor:
        """(batch, length, width) -> (batch, heads, length, head_dim)."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return rotate(self._heads(x), cos[:, None], sin[:, None])


class GemmaLayer(nn.Module):
    """Pre-norm attention and gated MLP."""

    def __init__(self, sizes: GemmaSizes) -> None:
        super().__init__()
        width = sizes.hidden_size
        self.self_attn = GemmaAttention(sizes)
        self.mlp = GatedMLP(width, sizes.intermediate_size, "gelu_pytorch_tanh", bias=False)
        self.input_layernorm = GemmaRMSNorm(width, sizes.rms_norm_eps)
        self.post_attention_layernorm = GemmaRMSNorm(width, sizes.rms_norm_eps)

    def join_weights(self) -> None:
        """Lay out weights so that fewer products suffice, where a cache says so."""
        self.self_attn.join_weights()
        self.mlp.join_weights()

    def forward(self, x: Tensor, shared: Visibility, cache: LayerCache | None = None) -> Tensor:
        """Return (batch, queries, hidden_size) from all tokens, (batch, length, hidden_size)."""
        x = shared.asking(x) + self.self_attn(self.input_layernorm(x), shared, cache)
        uses_joined = cache is not None and cache.uses_joined
        return x + self.mlp(self.post_attention_layernorm(x), uses_joined=uses_joined)


class GemmaModel(nn.Module):
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
        shared = Visibility(cos, sin, tuple(spans))
        caches = [cache and cache.layer(index) for index in range(len(self.layers))]
        run = partial(
            run_block,
            recompute=self.recompute,
            is_fixed=cache is not None and cache.uses_joined,
        )
        x = embeddings
        for layer, own in zip(self.layers[:-1], caches, strict=False):
            x = run(layer, x, shared, own)
        if wanted is not None:
            span = Span(wanted.columns.shape[1], spans[-1].keys, wanted.mask)
            shared = dataclasses.replace(shared, spans=(span,), columns=wanted.columns)
        x = run(self.layers[-1], x, shared, caches[-1])
        return self.norm(x)

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines, each (batch, length, head_dim) float32.

        Args:
            positions: (batch, length).
        """
        sizes = self.sizes
        frequencies = inverse_frequencies(sizes.head_dim // 2, sizes.rope_theta, positions.device)
        angles = (positions[..., None].float() * frequencies).repeat(1, 1, 2)
        return angles.cos(), angles.sin()

    def join_weights(self) -> None:
        """Lay out every layer's weights so that fewer products suffice, see `JoinedMaps`.

        Quantised weights stay as they are.
        """
        if any(is_quantized(weight) for weight in self.layers.parameters()):
            return
        for layer in self.layers:
            assert isinstance(layer, GemmaLayer)
            layer.join_weights()

    def new_cache(self, batch_size: int, length: int, *, uses_joined: bool = False) -> KVCache:
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
            uses_joined=uses_joined,
        )
