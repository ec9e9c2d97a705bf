# SPDX-License-Identifier: Apache-2.0
"""Language model of Qwen2.5-VL: causal, grouped queries, rotary positions on three axes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlakit.policies.attention_mask import causal_padding_mask
from vlakit.policies.backbones.attention import AttentionKind, as_bias, attend
from vlakit.policies.backbones.decoder_stack import DecoderStack, GroupedProjections
from vlakit.policies.backbones.kv_cache import KVCache, LayerCache
from vlakit.policies.backbones.layers import (
    GatedMLP,
    RMSNorm,
    inverse_frequencies,
    take_columns,
)
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


class TextAttention(GroupedProjections):
    """Causal attention with fewer key heads than query heads."""

    def __init__(self, sizes: TextSizes, kind: AttentionKind) -> None:
        super().__init__(
            sizes.hidden_size,
            num_heads=sizes.hidden_size // sizes.head_dim,
            num_kv_heads=sizes.num_key_value_heads,
            head_dim=sizes.head_dim,
            bias=True,
        )
        self.dropout = sizes.attention_dropout
        self.kind: AttentionKind = kind

    def forward(self, x: Tensor, shared: Visibility, cache: LayerCache | None = None) -> Tensor:
        """Return (batch, queries, hidden_size) from all tokens, (batch, length, hidden_size)."""
        return self.o_proj(self._attend(*self.project(x, shared, cache), shared))

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

    def forward(self, x: Tensor, shared: Visibility, cache: LayerCache | None = None) -> Tensor:
        """Return (batch, queries, hidden_size) from all tokens, (batch, length, hidden_size)."""
        x = shared.asking(x) + self.self_attn(self.input_layernorm(x), shared, cache)
        uses_joined = cache is not None and cache.uses_joined
        return x + self.mlp(self.post_attention_layernorm(x), uses_joined=uses_joined)


class TextModel(DecoderStack[TextSizes]):
    """Embeddings in, last hidden states out."""

    def __init__(self, sizes: TextSizes, kind: AttentionKind) -> None:
        super().__init__()
        # The plain constructor draws values, which on the meta device loads torch's compiler: 1 s.
        table = torch.empty(sizes.vocab_size, sizes.hidden_size)
        self.embed_tokens = nn.Embedding.from_pretrained(table, freeze=False)
        self.layers = nn.ModuleList(TextLayer(sizes, kind) for _ in range(sizes.num_hidden_layers))
        self.norm = RMSNorm(sizes.hidden_size, sizes.rms_norm_eps)
        self.sizes, self.kind = sizes, kind

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
        last = shared
        if segments is not None:
            shared = dataclasses.replace(shared, segments=segments.asking_all())
            last = dataclasses.replace(shared, segments=segments, wanted=wanted)
        elif wanted is not None and self.kind != "flash_attention_2":  # it takes no mask
            is_real, shape = shared.is_real, embeddings.shape[:2]
            known = torch.ones(shape, device=embeddings.device) if is_real is None else is_real
            mask = causal_padding_mask(known, wanted)
            last = dataclasses.replace(shared, mask=mask, wanted=wanted)
        x = self.run_layers(embeddings, shared, last, cache)
        if wanted is not None and last.wanted is None:
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
