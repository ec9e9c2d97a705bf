# SPDX-License-Identifier: Apache-2.0
"""Tensor names of EO-1 checkpoints and of Qwen2.5-VL, and token ids that must agree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlakit.checkpoints.pretrained import CONFIG_FILE, read_json
from vlakit.errors import CheckpointError

BACKBONE = "model.vlm_backbone."
LM_HEAD = f"{BACKBONE}lm_head.weight"
EMBEDDING = f"{BACKBONE}model.language_model.embed_tokens.weight"
TIED = {EMBEDDING: LM_HEAD}
"""The pair of a tied model: the second is stored, the first is named in the file's metadata."""

TOKENS = {"state_token_id": "<|state_pad|>", "action_token_id": "<|action_pad|>"}
"""Keys of an upstream `config.json` -> the tokens whose ids they hold."""

_QWEN_RULES = (
    # Names of transformers 4.52 and later, then those of the released files.
    ("model.language_model.", "model.language_model."),
    ("model.visual.", "model.visual."),
    ("visual.", "model.visual."),
    ("lm_head.", "lm_head."),
    ("model.", "model.language_model."),
)
_HEAD_PREFIXES = ("state_proj.", "action_in_proj.", "action_out_proj.", "action_time_mlp_")


def rename_backbone(key: str) -> str:
    """Return our name of a tensor of a Qwen2.5-VL checkpoint, old or new naming."""
    for old, new in _QWEN_RULES:
        if key.startswith(old):
            return f"{BACKBONE}{new}{key.removeprefix(old)}"
    return key


def rename_upstream(key: str) -> str:
    """Return our name of a tensor of the EO-1 project's checkpoints, any of their layouts.

    The backbone's tensors may have the prefix `vlm_backbone.` or none.
    """
    if key.startswith(_HEAD_PREFIXES):
        return f"model.{key}"
    return rename_backbone(key.removeprefix("vlm_backbone."))


def upstream_token_ids(entries: Mapping[str, Any], folder: Path) -> dict[str, int]:
    """Return the state and action token ids of an upstream checkpoint.

    Two layouts of ids are in use, so they are read from the configuration and compared with the
    tokenizer beside it.

    Raises:
        CheckpointError: when configuration and tokenizer disagree.
    """
    ids = {key: int(entries[key]) for key in TOKENS if entries.get(key) is not None}
    known = added_tokens(folder)
    for key, value in ids.items():
        token = TOKENS[key]
        if token in known and known[token] != value:
            raise CheckpointError(
                f"{folder / CONFIG_FILE} says {key}={value}, but the tokenizer beside it gives "
                f"{token} the id {known[token]}. Take the tokenizer that belongs to the weights."
            )
    return ids


def added_tokens(folder: Path) -> dict[str, int]:
    """Return the special tokens that the tokenizer files of a folder list, with their ids."""
    if (folder / "tokenizer.json").is_file():
        entries = read_json(folder / "tokenizer.json").get("added_tokens") or []
        return {entry["content"]: int(entry["id"]) for entry in entries}
    if (folder / "added_tokens.json").is_file():
        return {token: int(i) for token, i in read_json(folder / "added_tokens.json").items()}
    if (folder / "tokenizer_config.json").is_file():
        decoder = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
        return {entry["content"]: int(i) for i, entry in decoder.items()}
    return {}
