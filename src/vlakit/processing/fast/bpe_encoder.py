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
from vlakit.processing.fast.pair_table import Ids, PairTable
from vlakit.processing.fast.spelling import joined_text, texts_of
from vlakit.processing.fast.word_split import word_starts

_MAX_VOCAB = 4096
"""Largest vocabulary with a table of pairs, which takes 6 bytes per pair."""
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
        if self._pairs is None or self.unknown_codes(codes):
            return self._merge_with_library(codes)
        return self._search(codes, self._pairs)

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
        words = np.arange(0, batch * length, length)
        if self._bpe.regex_split:
            words = np.flatnonzero(word_starts(codes))
        text, begins = _standing(codes, words)
        ends = np.append(begins[1:], 0)
        is_last = np.append(words[1:] // length != words[:-1] // length, True)
        ends[is_last] = text.size + np.arange(batch)
        longest = self._longest(text, ends - batch)
        placed = self._place_tokens(longest.ravel(), begins, ends, batch, pairs)
        # Back to one text after the other.
        where = np.flatnonzero((placed != _EMPTY).reshape(text.shape).T)
        row, column = np.divmod(where, len(text))
        ids = (placed.take(column * batch + row) & _TOKEN_MASK).tolist()
        borders = np.searchsorted(row, np.arange(batch + 1)).tolist()
        return [ids[begin:end] for begin, end in itertools.pairwise(borders)]

    def _place_tokens(
        self,
        longest: NDArray[np.int16],
        at: Ids,
        ends: Ids,
        batch: int,
        pairs: PairTable,
    ) -> NDArray[np.int32]:
        """Return for every byte the token that begins there and the one before it, or -1.

        Args:
            longest: the longest token that starts at each byte of the standing texts.
            at: where the words begin.
            ends: where they end.
            batch: how far the next byte of a text is.
            pairs: which token may follow which.
        """
        placed = np.full(len(longest) - batch, _EMPTY, dtype=np.int32)
        before = np.full(len(at), pairs.none, dtype=np.intp)
        candidates = longest.take(at).astype(np.intp)
        strides = self._lengths * batch
        while len(at):
            token = pairs.longest_follower(before, candidates)
            placed[at] = token | before << _TOKEN_BITS
            stuck = np.flatnonzero(token == pairs.none)
            behind = at + strides.take(token)
            candidates = longest.take(behind).astype(np.intp)
            if len(stuck):
                last, place = before.take(stuck), at.take(stuck)
                placed[place] = _EMPTY
                place -= strides.take(last)
                behind[stuck] = place
                candidates[stuck] = pairs.shorter.take(last)
                token[stuck] = placed.take(place) >> _TOKEN_BITS
            at, before = behind, token
            going = np.flatnonzero(at != ends)
            if len(going) < len(at):
                at, ends = at.take(going), ends.take(going)
                before, candidates = before.take(going), candidates.take(going)
        return placed


def _standing(codes: NDArray[np.int32], words: Ids) -> tuple[NDArray[np.uint8], Ids]:
    """Return the bytes of each row of codes as a column, and where words begin in the flat array.

    Args:
        codes: (batch, length).
        words: where words begin in the flat codes.

    Returns:
        The texts, (bytes of the longest, batch); shorter ones are padded in front.
    """
    batch, length = codes.shape
    row, column = np.divmod(words, length)
    if codes.max() < 0x80:
        return np.ascontiguousarray(codes.T, dtype=np.uint8), column * batch + row
    text = np.frombuffer(joined_text(codes).encode(), dtype=np.uint8)
    row_begins = _places(codes, np.arange(batch) * length)
    sizes = np.diff(row_begins, append=len(text))
    height = int(sizes.max())
    lying = np.zeros((batch, height), dtype=np.uint8)
    lying[np.arange(height) >= height - sizes[:, None]] = text
    column = _places(codes, words) + (height - row_begins - sizes).take(row)
    return np.ascontiguousarray(lying.T), column * batch + row


def _places(codes: NDArray[np.int32], characters: Ids) -> Ids:
    """Return at which byte of the text of all codes these of its characters begin."""
    flat = codes.ravel()
    longer = np.flatnonzero(flat >= 0x80)
    letters = flat.take(longer)
    additional = 1 + (letters >= 0x800) + (letters >= 0x10000)
    before = np.concatenate([[0], np.cumsum(additional)])
    return characters + before.take(np.searchsorted(longer, characters))
