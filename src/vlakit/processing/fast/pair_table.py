# SPDX-License-Identifier: Apache-2.0
"""Which token may follow which in the output of BPE.

Tokens t1 ... tn are what BPE makes of their text exactly if that holds for every pair of neighbours
alone: the first merge across a border between neighbours would happen in the pair's own text, too,
since BPE always takes the lowest rank, wherever it is. So a table over pairs replaces the merging.

Whether a pair stands is found by running BPE on its text backwards. Across the border lie the last
token of the left part and the first of the right one; the last merge on either side is undone, the
later one first, down to single bytes. If at any moment the two across the border had a merge that
came before what happened next, it would have been taken.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlakit.processing.fast.bpe import ByteLevelBpe
from vlakit.processing.fast.byte_symbols import BYTE_SYMBOLS, bytes_of

Ids = NDArray[np.intp]
Ranks = NDArray[np.int32]

_NEVER = np.iinfo(np.int32).max
_BYTE = -1
_BLOCK_TOKENS = 32
"""Tokens worked out at a time, against all others."""


class PairTable:
    """Answers, for the token before and a candidate, the longest start of it that may follow.

    `none` (the vocabulary's size) stands for "no token": before the first one of a word, and as an
    answer.
    """

    def __init__(self, bpe: ByteLevelBpe) -> None:
        """Take the BPE; make sure of `is_regular` before use."""
        self.none = len(bpe.vocab)
        self._rank = np.full((self.none, self.none), _NEVER, dtype=np.int32)
        # Of each token: the rank of the merge that makes it, and the two that it merges.
        self._born = np.full(self.none, _BYTE, dtype=np.int32)
        self._left, self._right = np.zeros((2, self.none), dtype=np.intp)
        self.live = {
            bytes([byte]): bpe.vocab[symbol]
            for byte, symbol in enumerate(BYTE_SYMBOLS)
            if symbol in bpe.vocab
        }
        """Bytes -> id, of the tokens that can occur."""
        self.is_regular = self._take_merges(bpe)
        """Whether each token is made by one merge, of tokens made before it.

        So it is in every vocabulary that came out of training. Only then is the table right.
        """
        self.shorter = _longest_proper_starts(self.live, self.none)
        """Id of the longest token that a token starts with, itself aside."""
        if self.is_regular:
            self._answers = self._work_out().ravel()

    def _take_merges(self, bpe: ByteLevelBpe) -> bool:
        known = set(self.live.values())
        for rank, (first, second) in enumerate(bpe.merges):
            left, right = bpe.vocab[first], bpe.vocab[second]
            merged = bpe.vocab[first + second]
            if merged in known or left not in known or right not in known:
                return False
            known.add(merged)
            self.live[bytes_of(first + second)] = merged
            self._rank[left, right] = self._born[merged] = rank
            self._left[merged], self._right[merged] = left, right
        made = np.flatnonzero(self._born != _BYTE)
        left, right = self._left[made], self._right[made]
        return not self._merges_across(left, right, self._born[made]).any()

    def longest_follower(self, before: Ids, candidates: Ids) -> Ids:
        """Return the longest start of each candidate that may follow the token before it.

        Args:
            before: ids, or `none` at the start of a word.
            candidates: ids, or `none`.

        Returns:
            Ids, `none` where nothing that the candidate starts with may follow.
        """
        keys = candidates * (self.none + 1)
        keys += before
        return self._answers.take(keys).astype(np.intp)

    def _work_out(self) -> NDArray[np.int16]:
        """Return the answers, (candidates, tokens before)."""
        answers = np.full((self.none + 1, self.none + 1), self.none, dtype=np.int16)
        shortest_first = [self.live[piece] for piece in sorted(self.live, key=len)]
        for start in range(0, len(shortest_first), _BLOCK_TOKENS):
            candidates = np.array(shortest_first[start : start + _BLOCK_TOKENS])
            left, right = (grid.ravel() for grid in np.mgrid[0 : self.none, 0 : len(candidates)])
            never = np.full(len(left), _NEVER, dtype=np.int32)
            may_not = self._merges_across(left, candidates[right], never)
            for token, column in zip(candidates, may_not.reshape(self.none, -1).T, strict=True):
                shorter = answers[self.shorter[token], :-1]
                answers[token, :-1] = np.where(column, shorter, token)
                answers[token, -1] = token
        return answers

    def _merges_across(self, left: Ids, right: Ids, until: Ranks) -> NDArray[np.bool_]:
        """Return for which pairs BPE on their common text merges across the border.

        Args:
            left: ids.
            right: ids.
            until: the ranks before which a merge of the two whole tokens counts.
        """
        merges = np.zeros(len(left), dtype=bool)
        pairs = np.arange(len(left))
        until_left = until_right = until
        while len(pairs):
            rank = self._rank[left, right]
            # Of equal ranks the leftmost goes first: left part, border, right part.
            merges[pairs] = (rank < until_left) & (rank <= until_right)
            going = ~merges[pairs] & ((self._born[left] != _BYTE) | (self._born[right] != _BYTE))
            pairs, left, right = pairs[going], left[going], right[going]
            born_left, born_right = self._born[left], self._born[right]
            undo_left = born_left > born_right
            until_left = np.where(undo_left, born_left, until_left[going])
            until_right = np.where(undo_left, until_right[going], born_right)
            left, right = (
                np.where(undo_left, self._right[left], left),
                np.where(undo_left, right, self._left[right]),
            )
        return merges


def _longest_proper_starts(live: dict[bytes, int], none: int) -> Ids:
    starts = np.full(none + 1, none, dtype=np.intp)
    for piece, token in live.items():
        lengths = range(len(piece) - 1, 0, -1)
        starts[token] = next((live[piece[:n]] for n in lengths if piece[:n] in live), none)
    return starts
