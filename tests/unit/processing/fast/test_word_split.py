# SPDX-License-Identifier: Apache-2.0
"""GPT-2's pattern on arrays against the tokenizers library."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import pre_tokenizers

from vlakit.processing.fast.spelling import texts_of
from vlakit.processing.fast.word_split import word_starts

ALPHABETS = {
    "plain": "ab12 .,\n",
    "spaces": "a \t\n\u00a0\u2003.",
    "apostrophes": "'strevmld 1.",
    "latin": "".join(map(chr, range(0x20, 0x180))),
    "everything": "aß中9٣²½'. \u3000\u0085\u0301\U0001f600\U00020000\0",
}


def starts_by_library(texts: list[str]) -> np.ndarray:
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    starts = np.zeros((len(texts), len(texts[0])), dtype=bool)
    for row, text in enumerate(texts):
        for _, (start, _) in splitter.pre_tokenize_str(text):
            starts[row, start] = True
    return starts


@pytest.mark.parametrize("alphabet", ALPHABETS.values(), ids=ALPHABETS)
def test_words_start_where_the_library_says(alphabet: str) -> None:
    letters = np.array([ord(letter) for letter in alphabet], dtype=np.int32)
    generator = np.random.default_rng(0)
    for length in (1, 2, 3, 5, 40):
        codes = generator.choice(letters, (400, length))
        np.testing.assert_array_equal(word_starts(codes), starts_by_library(texts_of(codes)))


@pytest.mark.parametrize("text", ["I'll've", " 's", "''s", "a's's", "x  'd", "'r", "l'", "\n 'm"])
def test_endings_after_apostrophes(text: str) -> None:
    codes = np.array([[ord(letter) for letter in text]], dtype=np.int32)
    np.testing.assert_array_equal(word_starts(codes), starts_by_library([text]))
