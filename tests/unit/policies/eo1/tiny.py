# SPDX-License-Identifier: Apache-2.0
"""A very small EO-1 and a processed batch for it."""

from __future__ import annotations

from typing import Any

import torch

from vlakit.features import FeatureType, PolicyFeature
from vlakit.policies.eo1 import EO1Config, EO1Policy

IMAGE_ID, STATE_ID, ACTION_ID = 40, 41, 42

VLM_CONFIG: dict[str, Any] = {
    "model_type": "qwen2_5_vl",
    "dtype": "float32",
    "image_token_id": IMAGE_ID,
    "tie_word_embeddings": True,
    "text_config": {
        "vocab_size": 48,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"mrope_section": [1, 1, 2], "rope_theta": 1e6},
        "initializer_range": 0.1,
    },
    "vision_config": {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_heads": 2,
        "fullatt_block_indexes": [1],
        "out_hidden_size": 32,
        "initializer_range": 0.1,
    },
}


def tiny_config(**changes: Any) -> EO1Config:
    settings: dict[str, Any] = {
        "vlm_config": VLM_CONFIG,
        "device": "cpu",
        "input_features": {
            "observation.images.top": PolicyFeature(FeatureType.VISUAL, (3, 56, 56)),
            "observation.state": PolicyFeature(FeatureType.STATE, (5,)),
        },
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (3,))},
        "chunk_size": 4,
        "n_action_steps": 2,
        "max_state_dim": 6,
        "max_action_dim": 7,
        "num_denoise_steps": 3,
    }
    return EO1Config(**(settings | changes))


def tiny_policy(**changes: Any) -> EO1Policy:
    return EO1Policy(tiny_config(**changes))


def tiny_batch(
    text_lengths: tuple[int, ...] = (3, 5), *, side: str = "right", chunk: int = 4
) -> dict[str, Any]:
    """Return rows of one 56x56 image, a state, text of some length and a chunk of actions."""
    rows = [
        [1, *[IMAGE_ID] * 4, STATE_ID, *[7] * length, 2, *[ACTION_ID] * chunk, 3, 4]
        for length in text_lengths
    ]
    width = max(map(len, rows))
    pads = [[0] * (width - len(row)) for row in rows]
    padded = [p + r if side == "left" else r + p for r, p in zip(rows, pads, strict=True)]
    ids = torch.tensor(padded)
    generator = torch.Generator().manual_seed(1)
    count = len(rows)
    return {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "pixel_values": torch.randn(count * 16, 1176, generator=generator),
        "image_grid_thw": torch.tensor([(1, 4, 4)] * count),
        "observation.state": torch.randn(count, 5, generator=generator),
        "action": torch.randn(count, chunk, 3, generator=generator),
        "state_token_id": STATE_ID,
        "action_token_id": ACTION_ID,
    }
