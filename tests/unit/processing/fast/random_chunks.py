# SPDX-License-Identifier: Apache-2.0
"""Seeded chunks and tokenizers for the tests of FAST."""

from __future__ import annotations

from functools import cache

import numpy as np

from vlakit.processing import FastTokenizer


def smooth_chunks(
    batch: int, horizon: int, action_dim: int, *, seed: int = 0, size: float = 1.0
) -> np.ndarray:
    """Return slow motions with a little noise, about within [-size, size]."""
    generator = np.random.default_rng(seed)
    at = np.linspace(0, 1, horizon)[None, :, None]
    shape = (batch, 1, action_dim)
    start, slope = generator.uniform(-0.7, 0.7, (2, *shape))
    wave = generator.normal(0, 0.3, shape) * np.sin(2 * np.pi * at + generator.uniform(0, 6, shape))
    noise = generator.normal(0, 0.02, (batch, horizon, action_dim))
    return size * (start + slope * at * 0.5 + wave + noise)


@cache
def fitted(
    horizon: int = 10, action_dim: int = 4, *, regex_split: bool = True, size: float = 1.0
) -> FastTokenizer:
    """Return a tokenizer fitted on such chunks."""
    chunks = smooth_chunks(400, horizon, action_dim, seed=1, size=size)
    return FastTokenizer.train(chunks, vocab_size=400, regex_split=regex_split)
