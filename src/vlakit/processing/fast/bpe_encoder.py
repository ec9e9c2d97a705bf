# SPDX-License-Identifier: Apache-2.0
"""Byte-level BPE of many texts at once, in numpy: token for token what merging gives.

Instead of merging, look for the tokens from left to right: after each token the longest one that
the text goes on with and that may follow (`PairTable`). Where nothing may follow, the last token
was too long: take it back and try the next shorter one. The first whole sequence found is the only
one there is. All words of a batch are at it at the same time. (The idea is that of GitHub's `bpe`
crate, van Antwerpen and Neubeck 2024.)
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from vlakit.processing.fast.bpe import ByteLevelBpe
from vlakit.processing.fast.longest_match import LongestMatch
from vlakit.processing.fast.pair_table import PairTable
from vlakit.processing.fast.spelling import joined_text, texts_of
from vlakit.processing.fast.word_split import word_starts

_MAX_VOCAB = 4096
"""Largest vocabulary with a table of pairs, which takes 6 bytes per pair."""
_BLOCK_CODES = 1 << 20
"""Codes encoded at a time, so that they stay in the cache of one core."""
_EMPTY = -1
_TOKEN_BITS = 15
_TOKEN_MASK = (1 << _TOKEN_BITS) - 1


class BpeEncoder:
    """Encodes rows of codes; built at the first use, since decoding does not need it."""

    def __init__(self, bpe: ByteLevelBpe) -> None:
        """Take the BPE."""
        self._bpe = bpe
        self._missing = bpe.missing_bytes()
        self._pairs = PairTable(bpe) if len(bpe.vocab) <= _MAX_VOCAB else None
        if self._pairs is None or not self._pairs.is_regular:
            self._pairs = None
            return
        self._longest = LongestMatch(self._pairs.live)
        self._lengths = np.array([*map(len, bpe.token_bytes()), 0], dtype=np.intp)

    def __call__(self, codes: NDArray[np.int32]) -> list[list[int]]:
        """Return the ids of every row of codes, (batch, length), all of them characters.

        Bytes without a symbol are dropped, as in the reference; check for them before.
        """
        rows = max(1, _BLOCK_CODES // codes.shape[1])
        ids: list[list[int]] = []
        for start in range(0, len(codes), rows):
            block = codes[start : start + rows]
            if self._pairs is None or (self._missing and self.unknown_codes(block)):
                ids += self._merge_with_library(block)
            else:
                ids += self._search(block, self._pairs)
        return ids

    def unknown_codes(self, codes: NDArray[np.int32]) -> list[int]:
        """Return the codes, each once, that hold a byte without a symbol."""
        if not self._missing:
            return []
        present = np.flatnonzero(np.bincount(codes.ravel())).tolist()
        return [code for code in present if not self._missing.isdisjoint(chr(code).encode())]

    def _merge_with_library(self, codes: NDArray[np.int32]) -> list[list[int]]:
        encodings = self._bpe.to_library().encode_batch(texts_of(codes))
        return [encoding.ids for encoding in encodings]

    def _search(self, codes: NDArray[np.int32], pairs: PairTable) -> list[list[int]]:
        batch, length = codes.shape
        if self._bpe.regex_split:
            words = np.flatnonzero(word_starts(codes))
        else:
            words = np.arange(0, batch * length, length)
        rows = np.arange(0, batch * length, length)
        if codes.max() < 0x80:
            text = codes.astype(np.uint8).ravel()
        else:
            text = np.frombuffer(joined_text(codes).encode(), dtype=np.uint8)
            at = np.flatnonzero((text & 0xC0) != 0x80)  # where characters begin
            words, rows = at[words], at[rows]
        placed = self._place_tokens(text, words, pairs)
        where = np.flatnonzero(placed != _EMPTY)
        ids = (placed.take(where) & _TOKEN_MASK).tolist()
        borders = [*np.searchsorted(where, rows).tolist(), len(ids)]
        return [ids[begin:end] for begin, end in itertools.pairwise(borders)]

    def _place_tokens(
        self, text: NDArray[np.uint8], begins: NDArray[np.intp], pairs: PairTable
    ) -> NDArray[np.int32]:
        """Return for every byte the token that begins there and the one before, or -1."""
        ends = np.append(begins[1:], len(text))
        longest = self._longest(text, begins, ends)
        placed = np.full(len(text), _EMPTY, dtype=np.int32)
        at, before = begins, np.full(len(begins), pairs.none, dtype=np.intp)
        candidates = longest.take(at)
        while len(at):
            token = pairs.longest_follower(before, candidates)
            placed[at] = token | before << _TOKEN_BITS
            stuck = np.flatnonzero(token == pairs.none)
            behind = at + self._lengths.take(token)
            candidates = longest.take(behind)
            if len(stuck):
                last, place = before.take(stuck), at.take(stuck)
                placed[place] = _EMPTY
                place -= self._lengths.take(last)
                behind[stuck] = place
                candidates[stuck] = pairs.shorter.take(last)
                token[stuck] = placed.take(place) >> _TOKEN_BITS
            at, before = behind, token
            going = np.flatnonzero(at != ends)
            if len(going) < len(at):
                at, ends = at.take(going), ends.take(going)
                before, candidates = before.take(going), candidates.take(going)
        return placed
