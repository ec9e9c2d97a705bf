# SPDX-License-Identifier: Apache-2.0
"""Which FAST ids may follow, so that a chunk spells exactly horizon x action_dim coefficients.

A FAST id spells bytes; the bytes of a chunk, side by side, are UTF-8, and every character is one
coefficient. So two numbers say all about an unfinished chunk: how many coefficients are left (one
half spelled counts as left) and the state of the UTF-8 decoder. For every id and state the table
holds the state after its bytes and how many characters they completed; ids whose bytes no UTF-8
decoder would take there lead to a dead state. U+FFFD is dead too: whoever decodes to text cannot
tell it from a broken character. An id that spells nothing is dead, or decoding might never end.

`steps[left, state]` is the least number of ids that completes the chunk from there, infinite when
none do. It is filled from left = 0 upwards:

    steps[0, START] = 0
    steps[left, state] = 1 + min over ids of steps[left - spelled[state, id], successor[state, id]]

With m ids still to be generated, an id may come next when steps[...] after it is at most m - 1. By
induction there is then always an id that may come next until the chunk is complete, and it is
complete within the m ids. This holds for any vocabulary, also one that lacks some bytes.

On the device a position is one number, `(padding + left) * width + state`, and an id moves it by a
number that depends on the state alone. So the mask of a step is two look-ups and an addition for
all rows and ids at once. `padding` rows below left = 0 are infinite: ids that overshoot end there.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlakit.errors import ConfigError

_NEVER = np.iinfo(np.int32).max


class Utf8State(IntEnum):
    """What may come next. Source: Unicode 15, table 3-7, well-formed UTF-8 byte sequences.

    Ordered by the bytes that are still missing, so that an id which completes no character leads
    from a state to a smaller one, or out of START.
    """

    START = 0
    TAIL_1 = 1
    AFTER_EF_BF = 2
    TAIL_2 = 3
    AFTER_E0 = 4
    AFTER_ED = 5
    AFTER_EF = 6
    TAIL_3 = 7
    AFTER_F0 = 8
    AFTER_F4 = 9
    DEAD = 10


_S = Utf8State
_BYTES: tuple[tuple[Utf8State, int, int, Utf8State], ...] = (
    (_S.START, 0x00, 0x7F, _S.START),
    (_S.START, 0xC2, 0xDF, _S.TAIL_1),
    (_S.START, 0xE0, 0xE0, _S.AFTER_E0),
    (_S.START, 0xE1, 0xEC, _S.TAIL_2),
    (_S.START, 0xED, 0xED, _S.AFTER_ED),
    (_S.START, 0xEE, 0xEE, _S.TAIL_2),
    (_S.START, 0xEF, 0xEF, _S.AFTER_EF),
    (_S.START, 0xF0, 0xF0, _S.AFTER_F0),
    (_S.START, 0xF1, 0xF3, _S.TAIL_3),
    (_S.START, 0xF4, 0xF4, _S.AFTER_F4),
    (_S.TAIL_1, 0x80, 0xBF, _S.START),
    (_S.TAIL_2, 0x80, 0xBF, _S.TAIL_1),
    (_S.TAIL_3, 0x80, 0xBF, _S.TAIL_2),
    (_S.AFTER_E0, 0xA0, 0xBF, _S.TAIL_1),  # below are overlong forms
    (_S.AFTER_ED, 0x80, 0x9F, _S.TAIL_1),  # above are surrogates
    (_S.AFTER_EF, 0x80, 0xBE, _S.TAIL_1),
    (_S.AFTER_EF, 0xBF, 0xBF, _S.AFTER_EF_BF),
    (_S.AFTER_EF_BF, 0x80, 0xBC, _S.START),
    (_S.AFTER_EF_BF, 0xBE, 0xBF, _S.START),  # EF BF BD is U+FFFD
    (_S.AFTER_F0, 0x90, 0xBF, _S.TAIL_2),  # below are overlong forms
    (_S.AFTER_F4, 0x80, 0x8F, _S.TAIL_2),  # above is beyond U+10FFFF
)
"""State, first byte, last byte, next state. Bytes that are not named lead to DEAD."""

_WIDTH = len(Utf8State)
_SMALLEST_FIRST = (*(state for state in Utf8State if 0 < state < _S.DEAD), _S.START)


class TokenAutomaton:
    """The positions of unfinished chunks, and the ids that may follow each."""

    def __init__(
        self,
        token_bytes: Sequence[bytes],
        num_coefficients: int,
        max_steps: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Fill the tables.

        Args:
            token_bytes: what each id spells; their order is that of all (batch, ids) tensors.
            num_coefficients: horizon * action_dim, at least 1.
            max_steps: most ids of a chunk.
            device: where the tables go.

        Raises:
            ConfigError: the ids cannot spell that many coefficients, or not in so few ids.
        """
        successor, spelled = _transitions(token_bytes)
        padding = int(spelled.max(initial=0))
        moves = successor - np.arange(_WIDTH - 1)[:, None] - _WIDTH * spelled
        steps = _steps_to_end(moves, successor, num_coefficients, padding)
        self.min_steps = _checked_minimum(int(steps[-1, _S.START]), num_coefficients, max_steps)
        """Ids that the shortest chunk takes."""
        self.max_steps = max_steps
        """Most ids of a chunk."""
        self._start = (padding + num_coefficients) * _WIDTH
        self._end = padding * _WIDTH
        self._moves = torch.from_numpy(moves).to(device)
        self._steps = torch.from_numpy(steps).flatten().to(device)

    def start(self, batch_size: int) -> Tensor:
        """Return the positions of chunks without any id, (batch,) int64."""
        return torch.full((batch_size,), self._start, device=self._moves.device)

    def targets(self, positions: Tensor) -> Tensor:
        """Return where every id leads, (batch, ids), from positions (batch,)."""
        return positions[:, None] + self._moves[positions % _WIDTH]

    def allowed(self, targets: Tensor, num_generated: int | Tensor) -> Tensor:
        """Return which ids may come next, (batch, ids) boolean.

        Args:
            targets: where every id leads, (batch, ids).
            num_generated: ids of the chunk so far; a tensor (1,) where the device counts them.
        """
        return self._steps[targets] < self.max_steps - num_generated

    def is_complete(self, positions: Tensor) -> Tensor:
        """Return which chunks are complete, (batch,) boolean."""
        return positions == self._end


def _transitions(token_bytes: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the state after each id and the characters that it completes, both (states, ids)."""
    table = np.full((_WIDTH, 256), _S.DEAD, dtype=np.int64)
    for state, first, last, following in _BYTES:
        table[state, first : last + 1] = following
    shape = (_WIDTH - 1, len(token_bytes))
    successor, spelled = np.full(shape, _S.DEAD, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for id_, piece in enumerate(token_bytes):
        states = np.arange(_WIDTH - 1) if piece else np.full(_WIDTH - 1, _S.DEAD)
        for byte in piece:
            states = table[states, byte]
            spelled[:, id_] += states == _S.START
        successor[:, id_] = states
    spelled[successor == _S.DEAD] = 0
    return successor, spelled


def _steps_to_end(
    moves: NDArray[np.int64], successor: NDArray[np.int64], num_coefficients: int, padding: int
) -> NDArray[np.int32]:
    """Return the least number of ids to the end, (padding + num_coefficients + 1, states)."""
    steps = np.full((padding + num_coefficients + 1, _WIDTH), _NEVER, dtype=np.int32)
    steps[padding, _S.START] = 0
    flat = steps.reshape(-1)
    # Many ids move alike: what counts is the set of their moves.
    distinct = [np.unique(moves[state][successor[state] != _S.DEAD]) for state in range(_WIDTH - 1)]
    for row in range(padding + 1, len(steps)):
        # Within a row an id that completes nothing leads to a state that is filled before.
        for state in _SMALLEST_FIRST:
            least = flat[row * _WIDTH + state + distinct[state]].min(initial=_NEVER)
            steps[row, state] = least + 1 if least < _NEVER else _NEVER
    return steps


def _checked_minimum(minimum: int, num_coefficients: int, max_steps: int) -> int:
    if minimum == _NEVER:
        raise ConfigError(
            f"no sequence of the FAST tokenizer's pieces spells exactly {num_coefficients} "
            "coefficients (chunk_size x action dimensions). Train a tokenizer for this action "
            "(vlakit train-tokenizer) and pass it with --policy.action_tokenizer_name."
        )
    if minimum > max_steps:
        raise ConfigError(
            f"--policy.max_decoding_steps={max_steps} is too small: {num_coefficients} "
            f"coefficients take at least {minimum} tokens of this FAST tokenizer. Raise it; a "
            "chunk in use takes more than that."
        )
    return minimum
