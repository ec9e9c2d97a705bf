# SPDX-License-Identifier: Apache-2.0
"""Fitting: the same from the same chunks, complete, and refused where it cannot work."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.processing.fast.random_chunks import smooth_chunks
from vlakit.errors import ConfigError, ProcessingError
from vlakit.processing import FastTokenizer
from vlakit.processing.fast.byte_symbols import BYTE_SYMBOLS, bytes_of


def test_the_order_of_the_chunks_does_not_matter() -> None:
    chunks = smooth_chunks(300, 10, 4)
    first = FastTokenizer.train(chunks, vocab_size=400)
    shuffled = np.random.default_rng(1).permutation(chunks)
    for _ in range(2):
        again = FastTokenizer.train(shuffled, vocab_size=400)
        assert again.token_bytes == first.token_bytes
        assert again._bpe == first._bpe


def test_every_byte_has_an_id() -> None:
    tokenizer = FastTokenizer.train(smooth_chunks(50, 8, 2), vocab_size=256)
    assert sorted(tokenizer.token_bytes) == [bytes([byte]) for byte in range(256)]


def test_without_the_split_there_are_fewer_tokens() -> None:
    chunks = smooth_chunks(600, 10, 7)
    split, whole = (
        FastTokenizer.train(chunks, vocab_size=600, regex_split=regex_split)
        for regex_split in (True, False)
    )
    lengths = [sum(map(len, tokenizer.encode(chunks))) for tokenizer in (split, whole)]
    assert lengths[1] < lengths[0]
    np.testing.assert_array_equal(
        split.decode(split.encode(chunks)), whole.decode(whole.encode(chunks))
    )


def test_what_was_fitted_is_remembered() -> None:
    tokenizer = FastTokenizer.train(smooth_chunks(100, 12, 3), vocab_size=300, scale=5.0)
    assert (tokenizer.horizon, tokenizer.action_dim, tokenizer.scale) == (12, 3, 5.0)
    assert tokenizer.vocab_size <= 300
    assert tokenizer.normalizer is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vocab_size": 255}, "vocab_size is 255, expected at least 256"),
        ({"vocab_size": 20, "alphabet": "reference"}, "more than the vocab_size 20"),
        ({"scale": 0.0}, "scale is 0.0, expected a number above 0"),
    ],
)
def test_settings_without_room_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FastTokenizer.train(smooth_chunks(20, 10, 4), **changes)


def test_chunks_that_cannot_be_fitted_are_refused() -> None:
    with pytest.raises(ProcessingError, match="no chunk to fit on"):
        FastTokenizer.train(np.zeros((0, 10, 4)))
    with pytest.raises(ProcessingError, match="no character stands for"):
        FastTokenizer.train(smooth_chunks(5, 10, 4, size=1e6))


def test_byte_symbols_are_gpt2s() -> None:
    assert len(set(BYTE_SYMBOLS)) == 256
    assert BYTE_SYMBOLS[ord("A")] == "A"
    assert BYTE_SYMBOLS[ord(" ")] == "Ġ"
    assert BYTE_SYMBOLS[ord("\n")] == "Ċ"
    assert bytes_of("Ġa") == b" a"
    assert bytes_of("\0€") == "\0€".encode()
