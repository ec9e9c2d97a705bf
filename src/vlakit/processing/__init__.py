# SPDX-License-Identifier: Apache-2.0
"""Steps between raw batches and what a policy takes, each with its inverse beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlakit.lazy import lazy_names

if TYPE_CHECKING:
    from vlakit.processing.fast.tokenizer import FastTokenizer

__all__ = ["FastTokenizer", "Pipeline", "load_processors"]  # pyrefly: ignore[bad-dunder-all]

__getattr__ = lazy_names(
    __name__,
    {
        "FastTokenizer": "vlakit.processing.fast.tokenizer",
        "Pipeline": "vlakit.processing.pipeline",
        # Pipelines hold steps of policies, so what loads them lives with the policies.
        "load_processors": "vlakit.policies.processors",
    },
)
