# SPDX-License-Identifier: Apache-2.0
"""Write the preset `tiny-paligemma`: a tokenizer laid out as PaliGemma's, made for short prompts.

Every token costs when the demo trains on two CPU cores, so words of common manipulation
instructions, the numbers of state bins (-1 to 255) and the fixed text of pi0-FAST's prompt are
single tokens. As in PaliGemma, 1024 `<loc>` and 128 `<seg>` pieces are at the top, and "Action: "
is three pieces. The sizes of the network are in `vlakit.policies.backbones.paligemma_config`.

    python tools/make_tiny_paligemma_preset.py src/vlakit/presets/tiny-paligemma
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

ROWS = 3328
"""Pieces, and rows of the network's embedding: up to 2048 FAST tokens cover no word."""

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]
SPACE = "▁"
FIXED = ["Action", "Task", "State", "Task:", f",{SPACE}State:", f",{SPACE}state:", ";\n", "\n"]
"""Text around task and state; openpi's layout writes the same in front of a lower-cased task."""
CHARACTERS = [chr(code) for code in range(33, 127)]
NUMBERS = [f"{SPACE}{number}" for number in range(-1, 256)]

WORDS = Path(__file__).with_name("tiny_qwen_preset_words.txt")
"""Verbs, nouns, modifiers and function words, one paragraph each."""
MORE_WORDS = [
    *("board", "sideways", "forwards", "backwards", "upwards", "downwards", "clockwise", "nearest"),
    *("opening", "closing", "pushing", "pulling", "pressing", "sliding", "turning", "lifting"),
]

PIECES = (
    rf"Task:|,{SPACE}[Ss]tate:|;\n|{SPACE}?-?[0-9]+|{SPACE}?\p{{L}}+|{SPACE}|[^{SPACE}\p{{L}}0-9]"
)
"""What is looked up as a whole; what is no piece falls apart into characters, then bytes."""


def vocabulary() -> list[str]:
    """Return all pieces in the order of their ids."""
    words = sorted({*WORDS.read_text(encoding="utf-8").split(), *MORE_WORDS})
    opening = WORDS.read_text(encoding="utf-8").split("\n\n")[0].split()
    names = [f"{SPACE}{word}" for word in words]
    names += [f"{SPACE}{verb.capitalize()}" for verb in sorted(set(opening))]
    head = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *FIXED, SPACE, *CHARACTERS]
    head += [*NUMBERS, *(name for name in names if name not in NUMBERS)]
    tail = [*(f"<loc{i:04d}>" for i in range(1024)), *(f"<seg{i:03d}>" for i in range(128))]
    free = ROWS - len(head) - len(tail)
    return [*head, *(f"<unused{index}>" for index in range(free)), *tail]


def tokenizer() -> Tokenizer:
    """Return the tokenizer; it has no merges, pieces are found whole or not at all."""
    ids = {piece: index for index, piece in enumerate(vocabulary())}
    assert len(ids) == ROWS, "a piece stands twice"
    result = Tokenizer(
        models.BPE(ids, [], byte_fallback=True, unk_token="<unk>", ignore_merges=True)
    )
    result.normalizer = normalizers.Replace(" ", SPACE)
    result.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), "isolated")
    result.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    result.post_processor = processors.TemplateProcessing(
        "<bos> $A", "<bos> $A <bos> $B", [("<bos>", ids["<bos>"])]
    )
    result.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    return result


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer().to_str(pretty=False) + "\n", "utf-8")
    files = {
        "config.json": {
            "model_type": "paligemma",
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "clean_up_tokenization_spaces": False,
            "model_max_length": int(1e30),
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    free = sum(piece.startswith("<unused") for piece in vocabulary())
    print(f"{ROWS} pieces, {free} of them free")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
