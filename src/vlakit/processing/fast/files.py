# SPDX-License-Identifier: Apache-2.0
"""The two layouts of a FAST tokenizer on disk, read and written without remote code.

    transformers 4    processor_config.json, tokenizer.json, tokenizer_config.json
    transformers 5    processor_config.json, bpe_tokenizer/{tokenizer,tokenizer_config}.json

We write both side by side; reading prefers the second, as transformers 5 does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlakit.errors import CheckpointError
from vlakit.files import read_json, write_json, written_whole
from vlakit.processing.fast.bpe import ByteLevelBpe

PATTERNS = ("*.json", "bpe_tokenizer/*.json")
"""Files of a tokenizer on the hub; its code is not among them."""

_SUBFOLDER = "bpe_tokenizer"
_DAMAGED = "Fetch the tokenizer again, or train it again (vlakit train-tokenizer)."
_AUTO_MAP = "lerobot/fast-action-tokenizer--processing_action_tokenizer.UniversalActionProcessor"
"""Where transformers finds the reference's class; we ship no code and never run any."""


@dataclass(frozen=True)
class ProcessorSettings:
    """`processor_config.json`, with the reference's default for every missing key."""

    scale: float = 10.0
    vocab_size: int = 1024
    """What the trainer was asked for; the vocabulary may be larger or smaller."""
    min_token: int = 0
    time_horizon: int | None = None
    action_dim: int | None = None


def read_settings(folder: Path) -> ProcessorSettings:
    """Read `processor_config.json`.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = folder / "processor_config.json"
    missing = ": expected the folder of a FAST tokenizer. Check --policy.action_tokenizer_name."
    content = read_json(path, CheckpointError, missing=missing, damaged=_DAMAGED)
    default = ProcessorSettings()
    return ProcessorSettings(
        scale=_number(path, content, "scale", default.scale),
        vocab_size=_whole(path, content, "vocab_size", default.vocab_size),
        min_token=_whole(path, content, "min_token", default.min_token),
        time_horizon=_size(path, content, "time_horizon"),
        action_dim=_size(path, content, "action_dim"),
    )


def _number(path: Path, content: dict[str, Any], key: str, default: float) -> float:
    value = content.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e9:
        raise CheckpointError(f"{path}: {key} is {value!r}, expected a number above 0. {_DAMAGED}")
    return float(value)


def _whole(path: Path, content: dict[str, Any], key: str, default: int) -> int:
    value = content.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise CheckpointError(f"{path}: {key} is {value!r}, expected a whole number. {_DAMAGED}")
    return int(value)


def _size(path: Path, content: dict[str, Any], key: str) -> int | None:
    if content.get(key) is None:
        return None
    value = _whole(path, content, key, 0)
    if value < 1:
        raise CheckpointError(f"{path}: {key} is {value}, expected at least 1 or null. {_DAMAGED}")
    return value


def read_bpe(folder: Path) -> ByteLevelBpe:
    """Return the BPE of `tokenizer.json`, from whichever layout is there.

    Raises:
        CheckpointError: it is missing, damaged, or no byte-level BPE as FAST uses it.
    """
    path = folder / _SUBFOLDER / "tokenizer.json"
    if not path.is_file():
        path = folder / "tokenizer.json"
    missing = f", and so is {_SUBFOLDER}/tokenizer.json. {_DAMAGED}"
    content = read_json(path, CheckpointError, missing=missing, damaged=_DAMAGED)
    _check_is_byte_level_bpe(path, content)
    model = content["model"]
    vocab = model["vocab"]
    if sorted(vocab.values(), key=str) != sorted(range(len(vocab)), key=str):
        raise CheckpointError(
            f"{path}: the ids of its {len(vocab)} pieces are not 0 to {len(vocab) - 1}. {_DAMAGED}"
        )
    merges = model.get("merges", [])
    if not isinstance(merges, list):
        raise CheckpointError(f"{path}: the merges are no list. {_DAMAGED}")
    return ByteLevelBpe(
        vocab=vocab,
        merges=[_pair(path, merge, vocab) for merge in merges],
        regex_split=content["pre_tokenizer"].get("use_regex", True),
    )


def _pair(path: Path, merge: Any, vocab: dict[str, int]) -> tuple[str, str]:
    # Written as a pair since tokenizers 0.20, as "a b" before.
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(parts, list) or len(parts) != 2:
        raise CheckpointError(f"{path}: the merge {merge!r} is no pair. {_DAMAGED}")
    for piece in (*parts, "".join(map(str, parts))):
        if piece not in vocab:
            raise CheckpointError(
                f"{path}: {piece!r} of the merge {merge!r} is not in the vocabulary. {_DAMAGED}"
            )
    return parts[0], parts[1]


def _check_is_byte_level_bpe(path: Path, content: dict[str, Any]) -> None:
    """Raise for whatever would encode in another way than FAST does."""
    model = content.get("model")
    pre_tokenizer = content.get("pre_tokenizer")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        raise CheckpointError(f"{path} has no BPE vocabulary. {_DAMAGED}")
    if not isinstance(pre_tokenizer, dict):
        pre_tokenizer = {}
    oddities = {
        "model.type": (model.get("type", "BPE"), "BPE"),
        "model.dropout": (model.get("dropout") or None, None),
        "model.unk_token": (model.get("unk_token"), None),
        "model.byte_fallback": (model.get("byte_fallback", False), False),
        "model.ignore_merges": (model.get("ignore_merges", False), False),
        "model.continuing_subword_prefix": (model.get("continuing_subword_prefix") or None, None),
        "model.end_of_word_suffix": (model.get("end_of_word_suffix") or None, None),
        "normalizer": (content.get("normalizer"), None),
        "pre_tokenizer.type": (pre_tokenizer.get("type"), "ByteLevel"),
        "pre_tokenizer.add_prefix_space": (pre_tokenizer.get("add_prefix_space", True), False),
        "added_tokens": (content.get("added_tokens") or [], []),
    }
    for name, (given, expected) in oddities.items():
        if given != expected:
            raise CheckpointError(
                f"{path}: {name} is {given!r}, expected {expected!r} as in every FAST tokenizer. "
                "Give the folder of a FAST tokenizer (--policy.action_tokenizer_name)."
            )


def write_files(folder: Path, settings: ProcessorSettings, bpe: ByteLevelBpe) -> None:
    """Write both layouts.

    Args:
        folder: made if it is not there.
        settings: content of `processor_config.json`.
        bpe: content of `tokenizer.json`.
    """
    config = {
        "action_dim": settings.action_dim,
        "auto_map": {"AutoProcessor": _AUTO_MAP},
        "min_token": settings.min_token,
        "processor_class": "UniversalActionProcessor",
        "scale": settings.scale,
        "time_horizon": settings.time_horizon,
        "vocab_size": settings.vocab_size,
    }
    tokenizer_json = bpe.to_library().to_str(pretty=True)
    for place in (folder, folder / _SUBFOLDER):
        place.mkdir(parents=True, exist_ok=True)
        with written_whole(place / "tokenizer.json") as part:
            part.write_text(tokenizer_json, encoding="utf-8")
        write_json(place / "tokenizer_config.json", _tokenizer_config(), indent=2)
    write_json(folder / "special_tokens_map.json", {}, indent=2)
    write_json(folder / "processor_config.json", config, indent=2)


def _tokenizer_config() -> dict[str, Any]:
    return {
        # True would rewrite "A ." as "A." and lose a coefficient.
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(1e30),
        "processor_class": "UniversalActionProcessor",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
