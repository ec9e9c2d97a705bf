# SPDX-License-Identifier: Apache-2.0
"""Sizes of a PaliGemma network, by the name of a variant or from Hugging Face's `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlakit.errors import ConfigError, did_you_mean

_ACTIVATION = "gelu_pytorch_tanh"

_SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 224,
}
_GEMMA = {
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "vocab_size": 257_152,
}

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "gemma_2b": {
        "text_config": {**_GEMMA, "hidden_size": 2048, "intermediate_size": 16_384},
        "vision_config": _SO400M,
    },
    "gemma_300m": {
        "text_config": {**_GEMMA, "hidden_size": 1024, "intermediate_size": 4096},
        "vision_config": _SO400M,
    },
    "tiny": {
        "text_config": {
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "vocab_size": 3328,
        },
        "vision_config": {
            "hidden_size": 96,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "patch_size": 28,
            "image_size": 84,
        },
    },
}
"""Name -> entries of a Hugging Face configuration. The first two are openpi's sizes of Gemma."""


@dataclass(frozen=True, kw_only=True)
class SiglipSizes:
    """Sizes of the vision tower. Defaults are those Hugging Face fills in for a missing key."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    patch_size: int = 16
    image_size: int = 224
    """Side of the square images, pixels."""
    layer_norm_eps: float = 1e-6

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def num_patches(self) -> int:
        """Patches per image; each becomes one token of the language model."""
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True, kw_only=True)
class GemmaSizes:
    """Sizes of the language model. Defaults are those Hugging Face fills in for a missing key."""

    vocab_size: int = 256_000
    hidden_size: int = 3072
    intermediate_size: int = 24_576
    num_hidden_layers: int = 28
    num_attention_heads: int = 16
    num_key_value_heads: int = 16
    head_dim: int = 256
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0


@dataclass(frozen=True, kw_only=True)
class PaliGemmaSizes:
    """The whole network."""

    text: GemmaSizes
    vision: SiglipSizes

    @classmethod
    def of_variant(cls, name: str, changes: Mapping[str, Any] | None = None) -> PaliGemmaSizes:
        """Return the sizes of a variant.

        Args:
            name: a key of `VARIANTS`.
            changes: entries of a Hugging Face `config.json` that replace the variant's, key by key
                inside `text_config` and `vision_config`.

        Raises:
            ConfigError: when there is no such variant, or the sizes do not fit each other.
        """
        if name not in VARIANTS:
            raise ConfigError(
                f"PaliGemma variant {name!r} is unknown; expected one of {', '.join(VARIANTS)}."
                f"{did_you_mean(name, VARIANTS)}"
            )
        changes = changes or {}
        towers = {
            tower: {**entries, **(changes.get(tower) or {})}
            for tower, entries in VARIANTS[name].items()
        }
        return cls.from_json({**changes, **towers})

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> PaliGemmaSizes:
        """Read a Hugging Face `config.json` of PaliGemma (the first one, not PaliGemma 2).

        Raises:
            ConfigError: when sizes do not fit each other, or the file asks for something that this
                network does not have.
        """
        text, vision = config.get("text_config") or {}, config.get("vision_config") or {}
        _check_kinds(text, vision)
        rope = text.get("rope_parameters") or {}
        sizes = cls(
            text=GemmaSizes(**(_pick(GemmaSizes, text) | _pick(GemmaSizes, rope))),
            vision=SiglipSizes(**_pick(SiglipSizes, vision)),
        )
        for name, given in {
            "projection_dim": config.get("projection_dim"),
            "vision_config.projection_dim": vision.get("projection_dim"),
        }.items():
            _expect(
                given in (None, sizes.text.hidden_size),
                f"{name}={given}",
                f"text_config.hidden_size={sizes.text.hidden_size}, which images are projected to",
            )
        return sizes

    def __post_init__(self) -> None:
        text, vision = self.text, self.vision
        _expect(
            text.num_attention_heads % text.num_key_value_heads == 0,
            f"text_config.num_attention_heads={text.num_attention_heads}",
            f"a multiple of num_key_value_heads={text.num_key_value_heads}",
        )
        _expect(text.head_dim % 2 == 0, f"text_config.head_dim={text.head_dim}", "an even number")
        _expect(
            vision.hidden_size % vision.num_attention_heads == 0,
            f"vision_config.hidden_size={vision.hidden_size}",
            f"a multiple of num_attention_heads={vision.num_attention_heads}",
        )
        _expect(
            vision.image_size % vision.patch_size == 0,
            f"vision_config.image_size={vision.image_size}",
            f"a multiple of patch_size={vision.patch_size}",
        )


def _check_kinds(text: Mapping[str, Any], vision: Mapping[str, Any]) -> None:
    """Refuse what would compute something else than this network does."""
    _expect(
        text.get("model_type") in (None, "gemma"),
        f"text_config.model_type={text.get('model_type')!r}",
        "'gemma'",
    )
    rope = {**(text.get("rope_scaling") or {}), **(text.get("rope_parameters") or {})}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    _expect(kind == "default", f"rope type {kind!r}", "'default': no rotary scaling")
    _expect(not text.get("attention_bias"), "text_config.attention_bias=true", "false")
    acts = {
        "text_config.hidden_act": text.get("hidden_activation") or text.get("hidden_act"),
        "vision_config.hidden_act": vision.get("hidden_act"),
    }
    for name, act in acts.items():
        _expect(act in (None, _ACTIVATION), f"{name}={act!r}", repr(_ACTIVATION))


def _pick(sizes: type, entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that are fields of the dataclass and not null."""
    return {
        name: entries[name] for name in sizes.__dataclass_fields__ if entries.get(name) is not None
    }


def _expect(condition: bool, given: str, expected: str) -> None:
    if not condition:
        raise ConfigError(
            f"the PaliGemma configuration has {given}; expected {expected}. "
            "Correct --policy.paligemma_config."
        )
