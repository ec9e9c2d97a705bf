# SPDX-License-Identifier: Apache-2.0
"""Tiny untrained policies for any robot, as checkpoints that `vlakit eval` takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from vlakit.features import ACTION, OBS_STATE, FeatureType, PolicyFeature
from vlakit.policies.config import PolicyConfig
from vlakit.policies.eo1.config import EO1Config
from vlakit.policies.pi0_fast.config import PI0FastConfig
from vlakit.policies.registry import make_policy, make_processors
from vlakit.processing import FastTokenizer


def eo1(
    folder: Path, cameras: Sequence[str], *, size: int, state: int, action: int, scale: float = 0.5
) -> Path:
    """Write an EO-1 that acts around 0 with that spread; returns its folder."""
    config = EO1Config(
        vlm_base="tiny-qwen2.5-vl",
        device="cpu",
        chunk_size=16,
        n_action_steps=16,
        num_denoise_steps=2,
        **_features(cameras, size, state, action),
    )
    return _save(config, folder, scale)


def pi0_fast(folder: Path, cameras: Sequence[str], *, size: int, state: int, action: int) -> Path:
    """Write a pi0-FAST with a tokenizer fitted on noise; returns its folder."""
    noise = np.random.default_rng(0).uniform(-1, 1, (64, 10, action))
    FastTokenizer.train(noise, vocab_size=300).save_pretrained(folder / "action_tokenizer")
    config = PI0FastConfig().override(
        {
            "paligemma_variant": "tiny",
            "action_tokenizer_name": str(folder / "action_tokenizer"),
            "chunk_size": 10,
            "n_action_steps": 10,
            "max_decoding_steps": 64,
            "empty_cameras": 1,
            "device": "cpu",
            "normalization_mapping": {"STATE": "QUANTILES", "ACTION": "QUANTILES"},
            **_features(cameras, size, state, action),
        }
    )
    return _save(config, folder, 0.5)


def _features(cameras: Sequence[str], size: int, state: int, action: int) -> dict[str, dict]:
    picture = PolicyFeature(FeatureType.VISUAL, (3, size, size))
    return {
        "input_features": dict.fromkeys(cameras, picture)
        | {OBS_STATE: PolicyFeature(FeatureType.STATE, (state,))},
        "output_features": {ACTION: PolicyFeature(FeatureType.ACTION, (action,))},
    }


def _save(config: PolicyConfig, folder: Path, scale: float) -> Path:
    torch.manual_seed(0)
    policy = make_policy(config)
    policy.save_pretrained(folder)
    stats = {}
    for name, feature in ((OBS_STATE, config.state_feature), (ACTION, config.action_feature)):
        assert feature is not None
        zeros, ones = np.zeros(feature.shape), np.ones(feature.shape)
        stats[name] = {"mean": zeros, "std": scale * ones, "q01": -ones, "q99": ones}
    for pipeline in make_processors(policy.config, stats):
        pipeline.save(folder)
    return folder
