# SPDX-License-Identifier: Apache-2.0
"""Sizes of a Qwen2.5-VL network, read from Hugging Face's `config.json` of any age."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlakit.errors import ConfigError

IMAGE_TOKEN_ID = 151655
"""Placeholder of one merged image patch in the released tokenizers."""


@dataclass(frozen=True, kw_only=True)
class VisionSizes:
    """Sizes of the vision tower. Defaults are those Hugging Face fills in for a missing key."""

    depth: int = 32
    hidden_size: int = 3584
    intermediate_size: int = 3420
    num_heads: int = 16
    in_channels: int = 3
    patch_size: int = 14
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    """Patches per side of the square that becomes one token of the language model."""
    window_size: int = 112
    """Side of an attention window in pixels."""
    fullatt_block_indexes: tuple[int, ...] = (7, 15, 23, 31)
    """Blocks that attend over the whole image instead of one window."""
    out_hidden_size: int = 3584
    hidden_act: str = "silu"
    initializer_range: float = 0.02

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def merge_area(self) -> int:
        """Patches per merged token."""
        return self.spatial_merge_size**2

    @property
    def window_side(self) -> int:
        """Side of an attention window in merged tokens."""
        return self.window_size // self.spatial_merge_size // self.patch_size


@dataclass(frozen=True, kw_only=True)
class TextSizes:
    """Sizes of the language model."""

    vocab_size: int = 152064
    hidden_size: int = 8192
    intermediate_size: int = 29568
    num_hidden_layers: int = 80
    num_attention_heads: int = 64
    num_key_value_heads: int = 8
    rms_norm_eps: float = 1e-5
    rope_theta: float = 1_000_000.0
    mrope_section: tuple[int, ...] = (16, 24, 24)
    """Rotary frequency pairs given to time, row and column."""
    hidden_act: str = "silu"
    attention_dropout: float = 0.0
    initializer_range: float = 0.02

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True, kw_only=True)
class Qwen25VLSizes:
    """The whole network."""

    text: TextSizes
    vision: VisionSizes
    tie_word_embeddings: bool
    image_token_id: int
    dtype: str | None
    """Stored precision, such as 'bfloat16'; None when the file does not say."""

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Qwen25VLSizes:
        """Read a Hugging Face `config.json`, nested (transformers 5) or flat (released Qwen files).

        Raises:
            ConfigError: when sizes do not fit each other, or the file asks for a feature that this
                network does not have (sliding windows, scaled rotary embeddings).
        """
        text = config.get("text_config") or config
        tied = bool(config.get("tie_word_embeddings") or text.get("tie_word_embeddings"))
        dtype = config.get("dtype") or config.get("torch_dtype")
        return cls(
            text=_text_sizes(text),
            vision=_vision_sizes(config.get("vision_config") or {}),
            tie_word_embeddings=tied,
            image_token_id=int(config.get("image_token_id", IMAGE_TOKEN_ID)),
            dtype=str(dtype).removeprefix("torch.") if dtype else None,
        )

    def __post_init__(self) -> None:
        _expect(
            self.vision.out_hidden_size == self.text.hidden_size,
            f"vision_config.out_hidden_size={self.vision.out_hidden_size}",
            f"the text hidden_size={self.text.hidden_size}",
        )


def _text_sizes(text: Mapping[str, Any]) -> TextSizes:
    rope = {**(text.get("rope_scaling") or {}), **(text.get("rope_parameters") or {})}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ("default", "mrope"):
        raise ConfigError(
            f"vlm_config asks for rope type {kind!r}; expected 'default' or 'mrope'. "
            "Use a Qwen2.5-VL configuration without rotary scaling."
        )
    if "sliding_attention" in (text.get("layer_types") or ()):
        raise ConfigError(
            "vlm_config asks for sliding window attention; expected full attention in every layer. "
            "Set use_sliding_window to false."
        )
    sizes = _pick(TextSizes, text) | _pick(TextSizes, rope)
    result = TextSizes(**sizes)
    heads, kv_heads = result.num_attention_heads, result.num_key_value_heads
    _expect(
        result.hidden_size % heads == 0 and heads % kv_heads == 0,
        f"hidden_size={result.hidden_size}, num_attention_heads={heads}, "
        f"num_key_value_heads={kv_heads}",
        "each to be a multiple of the next",
    )
    _expect(
        sum(result.mrope_section) * 2 == result.head_dim and len(result.mrope_section) == 3,
        f"mrope_section={list(result.mrope_section)}",
        f"three numbers that add up to half the head size, {result.head_dim // 2}",
    )
    return result


def _vision_sizes(vision: Mapping[str, Any]) -> VisionSizes:
    sizes = _pick(VisionSizes, vision)
    if "in_channels" not in sizes and "in_chans" in vision:
        sizes["in_channels"] = vision["in_chans"]
    result = VisionSizes(**sizes)
    _expect(
        result.hidden_size % result.num_heads == 0 and result.head_dim % 4 == 0,
        f"vision_config.hidden_size={result.hidden_size} with num_heads={result.num_heads}",
        "heads whose size is a multiple of 4",
    )
    return result


def _pick(sizes: type, entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that are fields of the dataclass, lists as tuples."""
    known = {name: entries[name] for name in sizes.__dataclass_fields__ if name in entries}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in known.items()
        if value is not None
    }


def _expect(condition: bool, given: str, expected: str) -> None:
    if not condition:
        raise ConfigError(
            f"vlm_config has {given}; expected {expected}. Correct the configuration."
        )
