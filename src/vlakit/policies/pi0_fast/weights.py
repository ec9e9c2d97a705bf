# SPDX-License-Identifier: Apache-2.0
"""Tensor names of pi0-FAST checkpoints and of PaliGemma's, and which may stand for another."""

from __future__ import annotations

PALIGEMMA = "model.paligemma_with_expert.paligemma."
LM_HEAD = f"{PALIGEMMA}lm_head.weight"
EMBEDDING = f"{PALIGEMMA}model.language_model.embed_tokens.weight"

HEAD_FOR_EMBEDDING = {EMBEDDING: LM_HEAD}
"""LeRobot's checkpoints may lack the embedding table: it is a copy of the head then."""
EMBEDDING_FOR_HEAD = {LM_HEAD: EMBEDDING}
"""PaliGemma's head is its embedding table; the two are separate in pi0-FAST."""
VOCABULARY = (LM_HEAD, EMBEDDING)
"""Tensors with a row per token."""

_PALIGEMMA_RULES = (
    # Names of transformers 4.52 and later, then those of the released files.
    ("model.", "model."),
    ("lm_head.", "lm_head."),
    ("language_model.lm_head.", "lm_head."),
    ("language_model.model.", "model.language_model."),
    ("vision_tower.", "model.vision_tower."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
)


def rename_lerobot(key: str) -> str:
    """Return our name of a tensor of a pi0-FAST checkpoint; some lack the first level."""
    return key if key.startswith("model.") else f"model.{key}"


def rename_paligemma(key: str) -> str:
    """Return our name of a tensor of a PaliGemma checkpoint, old or new naming."""
    for old, new in _PALIGEMMA_RULES:
        if key.startswith(old):
            return f"{PALIGEMMA}{new}{key.removeprefix(old)}"
    return key
