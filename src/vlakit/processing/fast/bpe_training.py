# SPDX-License-Identifier: Apache-2.0
"""Byte-level BPE fitted on texts (Gage 1994; Sennrich, Haddow and Birch 2016).

The most frequent pair becomes a token, again and again; of equal counts the pair of the smallest
ids wins. So the result depends on how often each text occurs and on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from tokenizers import trainers

from vlakit.processing.fast.bpe import ByteLevelBpe
from vlakit.processing.fast.byte_symbols import BYTE_SYMBOLS

Alphabet = Literal["bytes", "reference"]
"""Symbols that are in the vocabulary whether seen or not: all 256 bytes, or the reference's choice.

The reference puts in the code points 0 ... max - min themselves. Most of these are no byte symbols
and never used, and bytes that the training chunks did not hold are missing: a text with one of them
loses it when encoded.
"""

_MIN_FREQUENCY = 2
_MAX_TOKEN_LENGTH = 10_000  # the reference's: no limit in practice


def train_bpe(
    texts: Iterable[str], *, vocab_size: int, regex_split: bool, symbols: Sequence[str]
) -> ByteLevelBpe:
    """Return a byte-level BPE fitted on texts.

    Args:
        texts: what to fit on.
        vocab_size: symbols and merges together; larger only if the symbols alone are more.
        regex_split: cut texts by GPT-2's pattern first, as the reference does; no token then
            crosses from letters to digits or punctuation, which makes more tokens.
        symbols: in the vocabulary whether seen or not.
    """
    tokenizer = ByteLevelBpe({}, [], regex_split).to_library()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=_MIN_FREQUENCY,
        show_progress=False,
        special_tokens=[],
        initial_alphabet=list(symbols),
        max_token_length=_MAX_TOKEN_LENGTH,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return ByteLevelBpe.from_library(tokenizer, regex_split=regex_split)


def symbols_of(alphabet: Alphabet, largest_code: int) -> Sequence[str]:
    """Return the symbols of an alphabet for codes from 0 to the largest."""
    if alphabet == "bytes":
        return BYTE_SYMBOLS
    return [chr(code) for code in range(largest_code + 1)]
