# SPDX-License-Identifier: Apache-2.0
"""FAST: action chunks as token ids and back, without torch and without remote code."""

from __future__ import annotations

from vlakit.processing.fast.normalizer import FastNormalizer
from vlakit.processing.fast.tokenizer import FastTokenizer

__all__ = ["FastNormalizer", "FastTokenizer"]
