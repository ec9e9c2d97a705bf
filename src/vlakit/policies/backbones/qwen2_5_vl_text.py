# SPDX-License-Identifier: Apache-2.0
"""Language model of Qwen2.5-VL: causal, grouped queries, rotary positions on three axes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vlakit.policies.attention_mask import causal_padding_mask
from vlakit.policies.backbones.attention import AttentionKind, as_bias, attend
from vlakit.policies.backbones.kv_cache import KVCache, LayerCache
from vlakit.policies.backbones.layers import (
    GatedMLP,
    JoinedMaps,
    Recompute,
    RMSNorm,
    inverse_frequencies,
    rotate,
    run_block,
    take_columns,
)
from vlakit.policies.backbones.quantized import is_quantized
from vlakit.policies.backbones.qwen2_5_vl_config import TextSizes
from vlakit.policies.backbones.segments import Segments, attend_segments


@dataclass(frozen=True)
class Visibility:
    """What the layers of one forward pass share."""

    cos: Tensor
    """(batch, length, head_dim), in the storage type."""
    sin: Tensor
    mask: Tensor | None
    """(batch, 1, queries, keys), True where visible; None for plain causal attention."""
    is_real: Tensor | None
    """(batch, keys), for an implementation that takes no mask."""
    wanted: Tensor | None = None
    """(batch, n) columns whose output is asked for; None for all."""
    segments: Segments | None = None
    """The segments of one packed row, and how many tokens of each ask; None for plain rows."""

    def asking(self, x: Tensor) -> Tensor:
        """Return the wanted columns of x, (batch, n, width)."""
        return x if self.wanted is None else take_columns(x, self.wanted)


class TextAttention(nn.Module):
    """Causal attention with fewer key heads than query heads."""

    def __init__(self, sizes: TextSizes, kind: AttentionKind) -> None:
        super().__init__()
        width, kv_width = sizes.hidden_size, sizes.num_key_value_heads * sizes.head_dim
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, kv_width)
        self.v_proj = nn.Linear(width, kv_width)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.head_dim, self.num_kv_heads = sizes.head_dim, sizes.num_key_value_heads
        self.dropout = sizes.attention_dropout
        self.kind: AttentionKind = kind
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
        return self.o_proj(self._attend(q, k, v, shared))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Visibility) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        if shared.segments is not None:
            return attend_segments(q, k, v, shared.segments, kind=self.kind, dropout=dropout)
        return attend(
            q,
            k,
            v,
            kind=self.kind,
            mask=shared.mask,
            is_real=shared.is_real,
            causal=True,
            dropout=dropout,
        )

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


class TextLayer(nn.Module):
    """Pre-norm attention and gated MLP."""

    def __init__(self, sizes: TextSizes, kind: AttentionKind) -> None:
        super().__init__()
        self.self_attn = TextAttention(sizes, kind)
        self.mlp = GatedMLP(
            sizes.hidden_size, sizes.intermediate_size, sizes.hidden_act, bias=False
        )
        self.input_layernorm = RMSNorm(sizes.hidden_size, sizes.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(sizes.hidden_size, sizes.rms_norm_eps)

    def join_weights(self) -> None:
        """Lay out weights so that fewer products suffice, where a cache says so."""
        self.self_attn.join_weights()
        self.mlp.join_weights()

    def forward(self, x: Tensor, shared: Visibility, cache: LayerCache | None = None) -> Tensor:
        """Return (batch, queries, hidden_size) from all tokens, (batch, length, hidden_size)."""
        x = shared.asking(x) + self.self_attn(self.input_layernorm(x), shared, cache)
        uses_joined = cache is not None and cache.uses_joined
        return x + self.mlp(self.post_attention_layernorm(x), uses_joined=uses_joined)


class TextModel(nn.Module):
    """Embeddings in, last hidden states out."""

    def __init__(self, sizes: TextSizes, kind: AttentionKind) -> None:
        super().__init__()
        # The plain constructor draws values, which on the meta device loads torch's compiler: 1 s.
        table = torch.empty(sizes.vocab_size, sizes.hidden_size)
        self.embed_tokens = nn.Embedding.from_pretrained(table, freeze=False)
        self.layers = nn.ModuleList(TextLayer(sizes, kind) for _ in range(sizes.num_hidden_layers))
        self.norm = RMSNorm(sizes.hidden_size, sizes.rms_norm_eps)
        self.sizes, self.kind = sizes, kind
        self.recompute: Recompute = "none"

    def forward(
        self,
        embeddings: Tensor,
        positions: Tensor,
        *,
        is_real: Tensor | None = None,
        cache: KVCache | None = None,
        wanted: Tensor | None = None,
        segments: Segments | None = None,
    ) -> Tensor:
        """Run the layers.

        Args:
            embeddings: (batch, length, hidden_size).
            positions: (3, batch, length) time, row and column of each token.
            is_real: (batch, keys), nonzero where a key, cached ones included, is not padding; None
                for plain causal attention over all.
            cache: earlier keys and values, which the new ones join.
            wanted: (batch, n) columns whose hidden states are returned; the last layer computes no
                others. None for all. Excludes `cache`.
            segments: of one packed row (batch 1 without padding), where `wanted` are the columns of
                the tokens that ask. Excludes `is_real` and `cache`.

        Returns:
            (batch, length or n, hidden_size), after the final norm.
        """
        shared = self.visibility(
            positions, embeddings.dtype, is_real=is_real, earlier=cache.start if cache else 0
        )
        return self.run(embeddings, shared, cache=cache, wanted=wanted, segments=segments)

    def run(
        self,
        embeddings: Tensor,
        shared: Visibility,
        *,
        cache: KVCache | None = None,
        wanted: Tensor | None = None,
        segments: Segments | None = None,
    ) -> Tensor:
        """As `forward`, with what the tokens see worked out before, for several calls."""
        if segments is not None:
            shared = dataclasses.replace(shared, segments=segments.asking_all())
        caches = [cache and cache.layer(index) for index in range(len(self.layers))]
        run = partial(
            run_block,
            recompute=self.recompute,
            is_fixed=cache is not None and cache.uses_joined,
        )
        x = embeddings
        for layer, own in zip(self.layers[:-1], caches, strict=False):
            x = run(layer, x, shared, own)
        if segments is not None:
            shared = dataclasses.replace(shared, segments=segments, wanted=wanted)
        elif wanted is not None and self.kind != "flash_attention_2":  # it takes no mask
            is_real = shared.is_real
            everything = torch.ones(x.shape[:2], device=x.device) if is_real is None else is_real
            mask = causal_padding_mask(everything, wanted)
            shared = dataclasses.replace(shared, mask=mask, wanted=wanted)
        x = run(self.layers[-1], x, shared, caches[-1])
        if wanted is not None and shared.wanted is None:
            x = take_columns(x, wanted)
        return self.norm(x)

    def visibility(
        self,
        positions: Tensor,
        dtype: torch.dtype,
        *,
        is_real: Tensor | None = None,
        earlier: int = 0,
        are_few: bool = False,
    ) -> Visibility:
        """Return what tokens at some positions see.

        Args:
            positions: (3, batch, length).
            dtype: of their embeddings.
            is_real: (batch, keys), nonzero where a key, cached ones included, is not padding; None
                where none is.
            earlier: keys that stand in the cache.
            are_few: whether few tokens look at many keys, at fixed shapes.
        """
        cos, sin = self._rotary(positions, dtype)
        if self.kind == "flash_attention_2" or (is_real is None and not earlier):
            return Visibility(cos, sin, None, is_real)
        keys, device = earlier + positions.shape[2], positions.device
        known = torch.ones(1, keys, dtype=torch.bool, device=device) if is_real is None else is_real
        mask = causal_padding_mask(known, torch.arange(earlier, keys, device=device)[None])
        return Visibility(cos, sin, as_bias(mask) if are_few else mask, is_real)

    def join_weights(self) -> None:
        """Lay out every layer's weights so that fewer products suffice, see `JoinedMaps`.

        Quantised weights stay as they are.
        """
        if any(is_quantized(weight) for weight in self.layers.parameters()):
            return
        for layer in self.layers:
            assert isinstance(layer, TextLayer)
            layer.join_weights()

    def new_cache(self, batch_size: int, length: int, *, uses_joined: bool = False) -> KVCache:
        """Return an empty cache in the storage type and on the device of the weights."""
        weight = self.norm.weight
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

    def _rotary(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return cosines and sines, each (batch, length, head_dim)."""
        sizes = self.sizes
        frequencies = inverse_frequencies(sizes.head_dim // 2, sizes.rope_theta, positions.device)
        per_axis = frequencies.split(list(sizes.mrope_section))
        angles = torch.cat(
            [
                axis[..., None].float() * part
                for axis, part in zip(positions, per_axis, strict=True)
            ],
            dim=-1,
        )  # (batch, length, head_dim / 2)
        angles = angles.repeat(1, 1, 2)
        return angles.cos().to(dtype), angles.sin().to(dtype)
