# SPDX-License-Identifier: Apache-2.0
"""Sizes are read from configuration files of any age."""

from __future__ import annotations

from typing import Any

import pytest

from vlakit.errors import ConfigError
from vlakit.policies.backbones.qwen2_5_vl_config import Qwen25VLSizes

FLAT_3B: dict[str, Any] = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 11008,
    "max_window_layers": 70,
    "model_type": "qwen2_5_vl",
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "image_token_id": 151655,
    "vision_config": {
        "depth": 32,
        "hidden_act": "silu",
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "in_chans": 3,
        "out_hidden_size": 2048,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 151936,
}
"""The settings of the released 3B model, in the layout in which they were published."""


def nested(**changes: Any) -> dict[str, Any]:
    """Return the same settings as transformers 5 writes them."""
    outer = (
        "vision_config",
        "image_token_id",
        "tie_word_embeddings",
        "torch_dtype",
        "rope_scaling",
    )
    text = {k: v for k, v in FLAT_3B.items() if k not in (*outer, "rope_theta")}
    text["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": 1000000.0,
        "mrope_section": [16, 24, 24],
    }
    return {
        "text_config": text | changes,
        "vision_config": FLAT_3B["vision_config"] | {"in_channels": 3},
        "image_token_id": 151655,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    }


def test_flat_and_nested_files_mean_the_same() -> None:
    sizes = Qwen25VLSizes.from_json(FLAT_3B)
    assert sizes == Qwen25VLSizes.from_json(nested())
    assert (sizes.text.head_dim, sizes.vision.head_dim, sizes.vision.window_side) == (128, 80, 4)
    assert (sizes.dtype, sizes.tie_word_embeddings) == ("bfloat16", True)


@pytest.mark.parametrize(
    ("outer", "inner", "tied"), [(None, True, True), (False, None, False), (True, False, True)]
)
def test_tie_is_read_from_either_place(outer: bool | None, inner: bool | None, tied: bool) -> None:
    config = nested(tie_word_embeddings=inner) | {"tie_word_embeddings": outer}
    assert Qwen25VLSizes.from_json(config).tie_word_embeddings is tied


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (nested(rope_parameters={"rope_type": "yarn"}), "rope type 'yarn'"),
        (nested(layer_types=["sliding_attention"]), "sliding window"),
        (nested(num_attention_heads=12), "num_attention_heads=12"),
        (
            nested(rope_parameters={"mrope_section": [8, 8, 8]}),
            r"mrope_section=\[8, 8, 8\].*head size, 64",
        ),
        (FLAT_3B | {"hidden_size": 1024}, "out_hidden_size=2048.*hidden_size=1024|mrope_section"),
    ],
)
def test_settings_that_do_not_fit_are_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Qwen25VLSizes.from_json(config)
