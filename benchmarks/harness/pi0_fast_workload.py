# SPDX-License-Identifier: Apache-2.0
"""What the pi0-FAST benchmarks run on: settings and a preprocessed batch that both sides read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import shapes
from safetensors.torch import save_file
from torch import Tensor

from vlakit.features import (
    ACTION,
    ACTION_TOKEN_MASK,
    ACTION_TOKENS,
    LANGUAGE_MASK,
    LANGUAGE_TOKENS,
    OBS_STATE,
    FeatureType,
    PolicyFeature,
)
from vlakit.files import write_json
from vlakit.policies.pi0_fast import PI0FastConfig
from vlakit.processing.fast.tokenizer import FastTokenizer

CAMERAS = ("observation.images.cam0", "observation.images.cam1")
EMPTY_CAMERAS = 1
PROMPT, PROMPT_WIDTH = 40, 200
"""Tokens of a prompt, and the width it is padded to."""
ACTION_LENGTH, ACTION_WIDTH = 40, 256
"""Tokens of an action chunk in training, and the width they are padded to."""
HORIZON, ACTION_DIM = 20, 4
"""Of a chunk that takes about 40 FAST tokens when a network with random weights writes it."""
_LOWEST_ID = 8
"""Ids below it are the fixed tokens."""


def write_settings(
    folder: Path, *, shape: str, device: str, dtype: str, horizon: int = HORIZON
) -> PI0FastConfig:
    """Write the settings that LeRobot reads (`lerobot/`) and return ours.

    They are the same but for the sizes of the network, which LeRobot's file has no key for, and the
    tokenizers, which it does not get (see `reference/pi0_fast.py`). Our FAST tokenizer has 1024
    tokens, as the released one, fitted on noise.
    """
    sizes = shapes.paligemma_config(shape)
    side = sizes["vision_config"]["image_size"]
    image = PolicyFeature(FeatureType.VISUAL, (3, side, side))
    tokenizer = folder / "fast_tokenizer"
    if not tokenizer.is_dir():
        chunks = np.random.default_rng(0).normal(size=(256, HORIZON, ACTION_DIM))
        FastTokenizer.train(chunks, vocab_size=1024).save_pretrained(tokenizer)
    config = PI0FastConfig(
        paligemma_config=None if shape == shapes.FULL else sizes,
        device=device,
        dtype=dtype,
        input_features={
            **dict.fromkeys(CAMERAS, image),
            OBS_STATE: PolicyFeature(FeatureType.STATE, (ACTION_DIM,)),
        },
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (ACTION_DIM,))},
        empty_cameras=EMPTY_CAMERAS,
        chunk_size=horizon,
        n_action_steps=horizon,
        image_resolution=(side, side),
        tokenizer_max_length=PROMPT_WIDTH,
        max_action_tokens=ACTION_WIDTH,
        text_tokenizer_name=shapes.PALIGEMMA_PRESET,
        action_tokenizer_name=str(tokenizer),
    )
    (folder / "lerobot").mkdir(exist_ok=True)
    write_json(folder / "lerobot" / "config.json", _for_lerobot(config))
    return config


def _for_lerobot(config: PI0FastConfig) -> dict[str, Any]:
    plain = dataclasses.replace(config, paligemma_config=None)
    entries = plain.to_json()
    assert not plain.own_fields & set(entries), entries
    return entries


def lerobot_sizes(shape: str) -> dict[str, Any] | None:
    """Return the sizes that LeRobot's network is changed to; None for its own, gemma_2b."""
    return None if shape == shapes.FULL else shapes.paligemma_config(shape)


def write_batch(folder: Path, *, shape: str, rows: int) -> dict[str, Tensor]:
    """Write one preprocessed batch and return it: cameras in [0, 1], prompt and action tokens."""
    sizes = shapes.paligemma_config(shape)
    side, vocabulary = sizes["vision_config"]["image_size"], sizes["text_config"]["vocab_size"]
    generator = torch.Generator().manual_seed(1)
    batch = {name: torch.rand(rows, 3, side, side, generator=generator) for name in CAMERAS}
    pairs = (
        (LANGUAGE_TOKENS, LANGUAGE_MASK, PROMPT, PROMPT_WIDTH),
        (ACTION_TOKENS, ACTION_TOKEN_MASK, ACTION_LENGTH, ACTION_WIDTH),
    )
    for tokens, mask, length, width in pairs:
        is_real = torch.arange(width).expand(rows, -1) < length
        ids = torch.randint(_LOWEST_ID, vocabulary, (rows, width), generator=generator)
        batch |= {tokens: torch.where(is_real, ids, 0), mask: is_real.contiguous()}
    save_file(batch, folder / "inputs.safetensors")
    return batch
