# SPDX-License-Identifier: Apache-2.0
"""Sizes of the networks that are measured; weights are random, only time and memory matter.

`tiny` runs in seconds, `middle` is what a CPU of two cores is asked, `full` is what is trained.
"""

from __future__ import annotations

from typing import Any

from vlakit.checkpoints.pretrained import read_config
from vlakit.hub import resolve
from vlakit.policies.backbones.paligemma_config import VARIANTS

TINY, MIDDLE, FULL = "tiny", "middle", "full"
NAMES = (TINY, MIDDLE, FULL)
QWEN_PRESET, PALIGEMMA_PRESET = "tiny-qwen2.5-vl", "tiny-paligemma"

_QWEN_TEXT: dict[str, dict[str, Any]] = {
    MIDDLE: {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "mrope_section": [8, 12, 12],
    },
    FULL: {
        "hidden_size": 2048,
        "intermediate_size": 11_008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "mrope_section": [16, 24, 24],
    },
}
_QWEN_VISION: dict[str, dict[str, Any]] = {
    MIDDLE: {
        "hidden_size": 384,
        "intermediate_size": 1152,
        "depth": 8,
        "num_heads": 6,
        "fullatt_block_indexes": [3, 7],
    },
    FULL: {
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "depth": 32,
        "num_heads": 16,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
}
_PALIGEMMA: dict[str, dict[str, Any]] = {
    TINY: VARIANTS["tiny"],
    MIDDLE: {
        "text_config": {
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 8,
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "head_dim": 64,
            "vocab_size": 257_152,
        },
        "vision_config": {
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "patch_size": 14,
            "image_size": 224,
        },
    },
    FULL: VARIANTS["gemma_2b"],
}


def qwen_config(shape: str, dtype: str) -> dict[str, Any]:
    """Return Hugging Face's configuration of the Qwen2.5-VL of a shape.

    `middle` is the issue's, `full` is Qwen2.5-VL-3B. The token ids are the preset's, whose
    tokenizer all shapes use.
    """
    preset = read_config(resolve(QWEN_PRESET))
    if shape == TINY:
        return preset | {"dtype": dtype}
    sizes = dict(_QWEN_TEXT[shape])
    rope = preset["text_config"]["rope_parameters"] | {"mrope_section": sizes.pop("mrope_section")}
    text = (
        preset["text_config"]
        | sizes
        | {
            "layer_types": ["full_attention"] * sizes["num_hidden_layers"],
            "max_window_layers": sizes["num_hidden_layers"],
            "rope_parameters": rope,
            "vocab_size": 151_936,
        }
    )
    vision = preset["vision_config"] | _QWEN_VISION[shape]
    vision["out_hidden_size"] = sizes["hidden_size"]
    return preset | {"text_config": text, "vision_config": vision, "dtype": dtype}


def paligemma_config(shape: str) -> dict[str, Any]:
    """Return text and vision sizes of the PaliGemma of a shape; `full` is gemma_2b."""
    return _PALIGEMMA[shape]
