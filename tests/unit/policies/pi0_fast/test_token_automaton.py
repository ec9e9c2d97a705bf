# SPDX-License-Identifier: Apache-2.0
"""The automaton against brute force: Python's own UTF-8 decoder and all sequences of small sets."""

from __future__ import annotations

import random
from functools import cache

import pytest
import torch

from vlakit.errors import ConfigError
from vlakit.policies.pi0_fast.token_automaton import TokenAutomaton

EVERY_BYTE = [bytes([byte]) for byte in range(256)]


def walk(automaton: TokenAutomaton, ids: list[int]) -> torch.Tensor:
    """Return the position after the ids, (1,)."""
    position = automaton.start(1)
    for id_ in ids:
        position = automaton.targets(position)[:, id_]
    return position


def allowed_ids(automaton: TokenAutomaton, ids: list[int]) -> set[int]:
    targets = automaton.targets(walk(automaton, ids))
    return set(automaton.allowed(targets, len(ids))[0].nonzero().flatten().tolist())


def test_exactly_the_beginnings_of_all_characters_are_allowed() -> None:
    automaton = TokenAutomaton(EVERY_BYTE, num_coefficients=1, max_steps=4)
    codes = [code for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF and code != 0xFFFD]
    characters = [chr(code).encode() for code in codes]
    prefixes, positions = [b""], automaton.start(1)
    for length in range(4):
        targets = automaton.targets(positions)
        row, byte = automaton.allowed(targets, length).nonzero(as_tuple=True)
        reached = [
            prefixes[r] + EVERY_BYTE[b] for r, b in zip(row.tolist(), byte.tolist(), strict=True)
        ]
        assert set(reached) == {text[: length + 1] for text in characters if len(text) > length}
        positions = targets[row, byte]
        is_whole = automaton.is_complete(positions)
        whole = {text for text, done in zip(reached, is_whole.tolist(), strict=True) if done}
        assert whole == {text for text in characters if len(text) == length + 1}
        prefixes = [text for text, done in zip(reached, is_whole.tolist(), strict=True) if not done]
        positions = positions[~is_whole]
    assert not prefixes


PIECES = (
    *(b"a", b"ab", b"abc", b"\xc3", b"\xa9", b"\xa9a", b"a\xc3", b"\xc3\xa9\xc3", b"\x80", b"\xbf"),
    *(b"\xe0", b"\xe0\xa0", b"\xa0\x80", b"\xed", b"\x9f\xbf", b"\xed\xa0", b"\xef", b"\xef\xbf"),
    *(b"\xbf\xbd", b"\xbd", b"\xbe", b"\xf0", b"\x90\x80", b"\x80\x80", b"\xf4", b"\x8f", b"\xf1"),
    *(b"", b"\xc0\x80", b"\xff", b"\xf0\x90\x80\x80", b"\xe2\x82\xac", b"\x82\xac", b"\xe2\x82"),
)


def brute_force(pieces: list[bytes], length: int, budget: int):
    """Return whether some `budget` more pieces make a text into one of `length` characters."""

    @cache
    def can_end(text: bytes, left: int) -> bool:
        try:
            whole = text.decode()
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                return False
            whole = text[: error.start].decode() + "?"
            if len(whole) > length:
                return False
        else:
            if "\ufffd" in whole or len(whole) > length:
                return False
            if len(whole) == length:
                return True
        return left > 0 and any(can_end(text + piece, left - 1) for piece in pieces if piece)

    return can_end


@pytest.mark.parametrize("seed", range(25))
def test_small_vocabularies_allow_what_brute_force_allows(seed: int) -> None:
    chance = random.Random(seed)
    pieces = chance.sample(PIECES, chance.randint(2, 9))
    length, budget = chance.randint(1, 4), chance.randint(1, 6)
    can_end = brute_force(pieces, length, budget)
    if not can_end(b"", budget):
        with pytest.raises(ConfigError):
            TokenAutomaton(pieces, length, budget)
        return
    automaton = TokenAutomaton(pieces, length, budget)
    for _ in range(30):
        ids: list[int] = []
        while not automaton.is_complete(walk(automaton, ids)):
            text = b"".join(pieces[id_] for id_ in ids)
            left = budget - len(ids)
            expected = {
                id_ for id_, piece in enumerate(pieces) if piece and can_end(text + piece, left - 1)
            }
            assert expected, "a dead end"
            assert allowed_ids(automaton, ids) == expected
            ids.append(chance.choice(sorted(expected)))
        assert len(b"".join(pieces[id_] for id_ in ids).decode()) == length
        assert not allowed_ids(automaton, ids)


def test_brute_force_meets_both_kinds_of_vocabulary() -> None:
    """The property above would be empty if most of the drawn sets could not end."""
    outcomes = []
    for seed in range(25):
        chance = random.Random(seed)
        pieces = chance.sample(PIECES, chance.randint(2, 9))
        length, budget = chance.randint(1, 4), chance.randint(1, 6)
        outcomes.append(brute_force(pieces, length, budget)(b"", budget))
    assert outcomes.count(True) >= 10
    assert outcomes.count(False) >= 3


def test_odd_lengths_are_refused_when_every_piece_spells_two() -> None:
    pieces = [b"ab", b"\xc3\xa9x"]
    assert TokenAutomaton(pieces, 10, 256).min_steps == 5
    with pytest.raises(
        ConfigError, match=r"exactly 9 coefficients .*--policy.action_tokenizer_name"
    ):
        TokenAutomaton(pieces, 9, 256)


def test_lengths_that_cannot_be_filled_are_avoided_in_time() -> None:
    """With pieces of 7 and 10, no chunk may get to 23 left: neither piece leads to the end."""
    automaton = TokenAutomaton([b"a" * 7, b"a" * 10], 37, 256)
    assert allowed_ids(automaton, []) == {0, 1}
    assert allowed_ids(automaton, [0]) == {1}, "30 left: 3 x 10"
    assert allowed_ids(automaton, [1]) == {0, 1}, "27 left: 7 + 2 x 10"
    assert allowed_ids(automaton, [1, 0]) == {1}


def test_the_steps_left_are_kept_in_reach() -> None:
    automaton = TokenAutomaton([b"a", b"aaaa"], 8, max_steps=3)
    assert automaton.min_steps == 2
    assert allowed_ids(automaton, []) == {1}, "after one 'a' seven are left: four more ids"
    assert allowed_ids(automaton, [1]) == {1}
    assert allowed_ids(TokenAutomaton([b"a", b"aaaa"], 8, max_steps=5), []) == {0, 1}


def test_too_few_steps_are_refused_with_the_minimum() -> None:
    with pytest.raises(ConfigError, match=r"max_decoding_steps=4 .*40 .* at least 5 tokens"):
        TokenAutomaton([b"a", b"a" * 8], 40, max_steps=4)


def test_rows_stand_at_different_places() -> None:
    automaton = TokenAutomaton([b"a", b"\xc3", b"\xa9"], 2, max_steps=4)
    rows = [walk(automaton, ids) for ids in ([], [0], [1], [0, 0])]
    positions = torch.cat(rows)
    assert automaton.is_complete(positions).tolist() == [False, False, False, True]
    assert automaton.allowed(automaton.targets(positions), 0).tolist() == [
        [True, True, False],
        [True, True, False],
        [False, False, True],
        [False, False, False],
    ]
