# SPDX-License-Identifier: Apache-2.0
"""A very small policy with tokenizers that were fitted on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlakit.features import FeatureType, PolicyFeature
from vlakit.policies.pi0_fast import PI0FastConfig, PI0FastPolicy
from vlakit.policies.pi0_fast.processor import make_processors
from vlakit.processing import FastTokenizer, Pipeline

HORIZON, DIM, STATE = 4, 2, 3
CAMERAS = ("observation.images.a", "observation.images.b")
SIZES = {
    "text_config": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "head_dim": 16,
        "num_attention_heads": 2,
    },
    "vision_config": {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "patch_size": 14,
        "image_size": 28,
    },
}
STATS = {
    "observation.state": {"q01": np.full(STATE, -1.0), "q99": np.ones(STATE)},
    "action": {"q01": np.full(DIM, -1.0), "q99": np.ones(DIM)},
}


def chunks(count: int = 32, seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.uniform(-1, 1, (count, HORIZON, DIM))).float()


def fast_tokenizer(folder: Path, seed: int = 0, vocab_size: int = 280) -> Path:
    """Fit a FAST tokenizer into a folder; returns the folder."""
    FastTokenizer.train(chunks(seed=seed).numpy(), vocab_size=vocab_size).save_pretrained(folder)
    return folder


def config(tokenizer: Path, **changes: Any) -> PI0FastConfig:
    camera = PolicyFeature(FeatureType.VISUAL, (3, 20, 28))
    settings: dict[str, Any] = {
        "paligemma_variant": "tiny",
        "paligemma_config": SIZES,
        "action_tokenizer_name": str(tokenizer),
        "chunk_size": HORIZON,
        "n_action_steps": 2,
        "max_action_tokens": 40,
        "tokenizer_max_length": 24,
        "max_decoding_steps": 24,
        "device": "cpu",
        "normalization_mapping": {"STATE": "QUANTILES", "ACTION": "QUANTILES"},
        "input_features": dict.fromkeys(CAMERAS, camera)
        | {"observation.state": PolicyFeature(FeatureType.STATE, (STATE,))},
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (DIM,))},
    }
    return PI0FastConfig().override(settings | changes)


def raw_batch(rows: int = 3, *, with_actions: bool = True) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(5)
    batch: dict[str, Any] = {
        name: torch.rand(rows, 3, 20, 28, generator=generator) for name in CAMERAS
    }
    batch["observation.state"] = torch.rand(rows, STATE, generator=generator) * 2 - 1
    batch["task"] = ["open the door", "push", "close the big drawer"][:rows]
    return batch | ({"action": chunks(rows)} if with_actions else {})


def save(policy: PI0FastPolicy, folder: Path) -> Path:
    """Write a whole checkpoint; returns the folder."""
    policy.save_pretrained(folder)
    for pipeline in processors(policy.config):
        pipeline.save(folder)
    return folder


def processors(settings: PI0FastConfig) -> tuple[Pipeline, Pipeline]:
    return make_processors(settings, STATS)
