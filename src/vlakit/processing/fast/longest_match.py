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
        """Take the tokens and their ids, below 4096."""
        # Bytes that occur in no longer token lead back to the root: they share a column.
        shared = {byte for piece in ids if len(piece) > 1 for byte in piece}
        self._column = np.zeros(256, dtype=np.int16)
        self._column[sorted(shared)] = np.arange(1, len(shared) + 1)
        self._alone = np.zeros(256, dtype=np.int16)
        for piece, token in ids.items():
            if len(piece) == 1:
                self._alone[piece[0]] = token
        trie, ends = _reversed_trie({p: t for p, t in ids.items() if shared.issuperset(p)})
        table, longest = _complete(trie, ends, self._column)
        # One gather gives both: the index of the next state's row, and the longest token there.
        self._arrows = (table * (table.shape[1] << _TOKEN_BITS) | longest[table]).ravel()

    def __call__(
        self, text: NDArray[np.uint8], begins: NDArray[np.intp], ends: NDArray[np.intp]
    ) -> NDArray[np.int16]:
        """Return the id of the longest token that starts at each byte and ends in its word.

        Args:
            text: the bytes of all words, in a row.
            begins: where each word begins.
            ends: where each word ends; no word is empty.
        """
        columns = self._column.take(text)
        found = np.zeros(len(text) + 1, dtype=np.int16)
        order = np.argsort(begins - ends, kind="stable")  # the longest first
        positions = ends[order]
        lengths = positions - begins[order]
        # How many words have a byte that many places before their end.
        alive = np.searchsorted(-lengths, -np.arange(int(lengths[0])), side="left").tolist()
        state = np.zeros(len(order), dtype=np.intp)
        for count in alive:
            if count < len(state):
                positions, state = positions[:count], state[:count]
            positions -= 1
            state += columns.take(positions)
            arrows = self._arrows.take(state)
            found[positions] = arrows & _TOKEN_MASK
            state = arrows >> _TOKEN_BITS
        alone = np.flatnonzero(columns == 0)
        found[alone] = self._alone.take(text.take(alone))
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
