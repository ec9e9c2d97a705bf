# SPDX-License-Identifier: Apache-2.0
"""The longest token that starts at each position of a text, in one pass from its end.

An automaton (Aho and Corasick 1975) over the reversed tokens, as a full table of transitions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Trie = list[dict[int, int]]
_NONE = -1
_TOKEN_BITS = 15
_TOKEN_MASK = (1 << _TOKEN_BITS) - 1


class LongestMatch:
    """The automaton of a set of tokens that holds every single byte it will meet."""

    def __init__(self, ids: Mapping[bytes, int]) -> None:
        """Take the tokens and their ids, below 32768."""
        # Bytes that occur in no longer token lead back to the root: they share a column.
        shared = sorted({byte for piece in ids if len(piece) > 1 for byte in piece})
        self._column = np.zeros(256, dtype=np.int16)
        self._column[shared] = np.arange(1, len(shared) + 1)
        self._width = len(shared) + 1
        self._alone = np.zeros(256, dtype=np.int16)
        for piece, token in ids.items():
            if len(piece) == 1:
                self._alone[piece[0]] = token
        trie, ends = _reversed_trie({p: t for p, t in ids.items() if set(p) <= set(shared)})
        table, longest = _complete(trie, ends, self._column)
        # A second set of columns, for the last byte of a word: all states do as the root does.
        table = np.hstack([table, np.broadcast_to(table[0], table.shape)])
        # One gather gives both: the index of the next state's row, and the longest token there.
        self._arrows = (table * (table.shape[1] << _TOKEN_BITS) | longest[table]).ravel()

    def __call__(self, text: NDArray[np.uint8], word_ends: NDArray[np.intp]) -> NDArray[np.int16]:
        """Return the id of the longest token that starts at each byte and ends in its word.

        Args:
            text: (height, batch), a text in every column.
            word_ends: last bytes of words, as indices into the flat text.

        Returns:
            (height + 1, batch); the last row means nothing.
        """
        columns = self._column.take(text)
        alone = np.flatnonzero(columns == 0)
        columns.ravel()[word_ends] += self._width
        found = np.zeros((len(text) + 1, text.shape[1]), dtype=np.int16)
        state = np.zeros(text.shape[1], dtype=np.intp)
        arrows = np.empty_like(state)
        for row in range(len(text) - 1, -1, -1):
            state += columns[row]
            self._arrows.take(state, out=arrows, mode="clip")  # "raise" would copy
            np.bitwise_and(arrows, _TOKEN_MASK, out=found[row], casting="unsafe")
            np.right_shift(arrows, _TOKEN_BITS, out=state)
        found.ravel()[alone] = self._alone.take(text.ravel().take(alone))
        return found


def _reversed_trie(ids: Mapping[bytes, int]) -> tuple[Trie, list[int]]:
    """Return child states by byte for every state, and the token that ends in each state."""
    trie: Trie = [{}]
    ends = [_NONE]
    for piece, token in ids.items():
        state = 0
        for byte in reversed(piece):
            if byte not in trie[state]:
                trie[state][byte] = len(trie)
                trie.append({})
                ends.append(_NONE)
            state = trie[state][byte]
        ends[state] = token
    return trie, ends


def _complete(
    trie: Trie, ends: list[int], column: NDArray[np.int16]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the transitions (states, columns) and the longest token that ends in each state."""
    table = np.zeros((len(trie), int(column.max()) + 1), dtype=np.intp)
    longest = np.array(ends, dtype=np.intp)
    longest[0] = 0  # nothing ends in the root; it is never asked for
    fallback = [0] * len(trie)
    queue = deque([0])
    while queue:
        state = queue.popleft()
        row = table[fallback[state]].copy()
        for byte, child in trie[state].items():
            # Children of the root fall back to the root, whose row is still empty here.
            fallback[child] = int(row[column[byte]])
            if longest[child] == _NONE:
                longest[child] = longest[fallback[child]]
            row[column[byte]] = child
            queue.append(child)
        table[state] = row
    return table, longest
