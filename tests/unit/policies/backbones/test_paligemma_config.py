# SPDX-License-Identifier: Apache-2.0
"""Sizes of PaliGemma: by name, from Hugging Face's files, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from transformers import PaliGemmaConfig

from vlakit.errors import ConfigError
from vlakit.policies.backbones.paligemma_config import VARIANTS, PaliGemmaSizes

RELEASED: dict[str, Any] = {  # the entries of google/paligemma-3b-pt-224 that concern sizes
    "hidden_size": 2048,
    "model_type": "paligemma",
    "projection_dim": 2048,
    "text_config": {
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "model_type": "gemma",
        "num_attention_heads": 8,
        "num_hidden_layers": 18,
        "num_image_tokens": 256,
        "num_key_value_heads": 1,
        "torch_dtype": "float32",
        "vocab_size": 257216,
    },
    "vision_config": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
        "num_image_tokens": 256,
        "patch_size": 14,
        "projection_dim": 2048,
        "projector_hidden_act": "gelu_fast",
        "vision_use_head": False,
    },
}


def test_the_released_file_differs_from_gemma_2b_in_its_vocabulary_only() -> None:
    changes = {"text_config": {"vocab_size": 257216}}
    sizes = PaliGemmaSizes.from_json(RELEASED)
    assert sizes == PaliGemmaSizes.of_variant("gemma_2b", changes)
    assert sizes.text.vocab_size == 257216
    assert PaliGemmaSizes.of_variant("gemma_2b").text.vocab_size == 257152
    assert sizes.vision.num_patches == 256


def test_changes_replace_single_entries_of_a_variant() -> None:
    changes = {"text_config": {"num_hidden_layers": 3}, "vision_config": {"image_size": 112}}
    sizes = PaliGemmaSizes.of_variant("gemma_300m", changes)
    assert (sizes.text.num_hidden_layers, sizes.text.hidden_size) == (3, 1024)
    assert (sizes.vision.image_size, sizes.vision.num_patches) == (112, 64)
    assert VARIANTS["gemma_300m"]["text_config"]["num_hidden_layers"] == 18


@pytest.mark.parametrize("name", VARIANTS)
def test_transformers_reads_the_same_sizes(name: str) -> None:
    config = PaliGemmaConfig(**copy.deepcopy(VARIANTS[name]), projection_dim=1).to_dict()
    del config["projection_dim"], config["vision_config"]["projection_dim"]
    assert PaliGemmaSizes.from_json(config) == PaliGemmaSizes.of_variant(name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text_config": {"num_key_value_heads": 3}}, "num_attention_heads=4"),
        ({"text_config": {"head_dim": 7}}, "head_dim=7"),
        ({"text_config": {"model_type": "gemma2"}}, "'gemma2'"),
        ({"text_config": {"hidden_act": "silu"}}, "'silu'"),
        ({"text_config": {"hidden_activation": "gelu"}}, "'gelu'"),
        ({"text_config": {"attention_bias": True}}, "attention_bias"),
        ({"text_config": {"rope_parameters": {"rope_type": "linear"}}}, "'linear'"),
        ({"text_config": {"rope_scaling": {"type": "dynamic"}}}, "'dynamic'"),
        ({"vision_config": {"num_attention_heads": 5}}, "num_attention_heads=5"),
        ({"vision_config": {"image_size": 90}}, "patch_size=28"),
        ({"vision_config": {"hidden_act": "relu"}}, "'relu'"),
        ({"vision_config": {"projection_dim": 2048}}, "hidden_size=128"),
        ({"projection_dim": 2048}, "projection_dim=2048"),
    ],
)
def test_what_the_network_does_not_compute_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        PaliGemmaSizes.of_variant("tiny", changes)
    assert "--policy.paligemma_config" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_variant_is_refused_with_a_near_one() -> None:
    with pytest.raises(ConfigError, match=r"gemma_3b.*Did you mean.*gemma_"):
        PaliGemmaSizes.of_variant("gemma_3b")
