# SPDX-License-Identifier: Apache-2.0
"""Byte-level BPE (Sennrich, Haddow and Birch 2016) as FAST uses it.

A text is cut into words, each word into bytes, and neighbours are merged, the pair of the lowest
rank first and of equal ones the leftmost. A *piece* is written in byte symbols.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from vlakit.processing.fast.byte_symbols import BYTE_SYMBOLS, bytes_of


@dataclass(frozen=True)
class ByteLevelBpe:
    """A vocabulary and its merges."""

    vocab: dict[str, int]
    """Piece -> id; the ids are 0 to len(vocab) - 1."""
    merges: list[tuple[str, str]]
    """Pairs of pieces in the order of their rank."""
    regex_split: bool
    """Whether texts are cut into words by GPT-2's pattern; else a text is one word."""

    def pieces(self) -> list[str]:
        """Return the pieces in the order of their ids."""
        return sorted(self.vocab, key=self.vocab.__getitem__)

    def token_bytes(self) -> tuple[bytes, ...]:
        """Return the bytes that each id spells."""
        return tuple(bytes_of(piece) for piece in self.pieces())

    def missing_bytes(self) -> frozenset[int]:
        """Return the bytes without a symbol; encoding would drop them."""
        return frozenset(b for b, symbol in enumerate(BYTE_SYMBOLS) if symbol not in self.vocab)

    def to_library(self) -> Tokenizer:
        """Return the same as a tokenizer of the tokenizers library."""
        tokenizer = Tokenizer(models.BPE(vocab=self.vocab, merges=self.merges))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
            add_prefix_space=False, use_regex=self.regex_split
        )
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
        return tokenizer

    @classmethod
    def from_library(cls, tokenizer: Tokenizer, *, regex_split: bool) -> ByteLevelBpe:
        """Return what a trainer put into a tokenizer that `to_library` made."""
        model = json.loads(tokenizer.to_str())["model"]
        merges = [(first, second) for first, second in model["merges"]]
        return cls(vocab=model["vocab"], merges=merges, regex_split=regex_split)
