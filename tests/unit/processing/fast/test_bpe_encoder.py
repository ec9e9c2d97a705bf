# SPDX-License-Identifier: Apache-2.0
"""BPE by table and search against the merging of the tokenizers library, token for token."""

from __future__ import annotations

import numpy as np
import pytest

from vlakit.processing.fast.bpe import ByteLevelBpe
from vlakit.processing.fast.bpe_encoder import BpeEncoder
from vlakit.processing.fast.bpe_training import train_bpe
from vlakit.processing.fast.byte_symbols import BYTE_SYMBOLS
from vlakit.processing.fast.pair_table import PairTable
from vlakit.processing.fast.spelling import texts_of

CENTRES = {"spaces": 34, "apostrophes": 41, "letters": 100, "two bytes": 128, "FAST+": 354}
"""Code of the coefficient 0, by what lies around it."""


def random_codes(batch: int, length: int, centre: int, spread: float, seed: int) -> np.ndarray:
    """Return codes (batch, length) that shrink towards the centre, as coefficients do."""
    generator = np.random.default_rng(seed)
    fading = spread * np.exp(-np.linspace(0, 4, length))
    codes = np.rint(centre + generator.normal(0, 1, (batch, length)) * fading)
    return np.maximum(codes, 0).astype(np.int32)


def merged_by_library(bpe: ByteLevelBpe, codes: np.ndarray) -> list[list[int]]:
    return [encoding.ids for encoding in bpe.to_library().encode_batch(texts_of(codes))]


@pytest.mark.parametrize("regex_split", [True, False])
@pytest.mark.parametrize("centre", CENTRES.values(), ids=CENTRES)
def test_ids_equal_the_librarys(centre: int, regex_split: bool) -> None:
    bpe = train_bpe(
        texts_of(random_codes(300, 60, centre, 12, seed=1)),
        vocab_size=450,
        regex_split=regex_split,
        symbols=BYTE_SYMBOLS,
    )
    encoder = BpeEncoder(bpe)
    for seed, (length, spread) in enumerate([(60, 12), (61, 60), (1, 20), (2, 3), (300, 8)]):
        codes = random_codes(200, length, centre, spread, seed=10 + seed)
        assert encoder(codes) == merged_by_library(bpe, codes)


def test_characters_of_every_length_in_one_batch() -> None:
    bpe = train_bpe(
        texts_of(random_codes(300, 30, 100, 60, seed=1)),
        vocab_size=500,
        regex_split=True,
        symbols=BYTE_SYMBOLS,
    )
    generator = np.random.default_rng(2)
    choices = np.array([9, 32, 39, 65, 100, 127, 128, 0x7FF, 0x800, 0xD7FF, 0xE000, 0x1F600])
    codes = generator.choice(choices, (300, 30)).astype(np.int32)
    assert BpeEncoder(bpe)(codes) == merged_by_library(bpe, codes)


def test_runs_of_one_character_are_cut_as_merging_cuts_them() -> None:
    texts = ["a" * length for length in range(1, 90)]
    bpe = train_bpe(texts, vocab_size=300, regex_split=False, symbols=BYTE_SYMBOLS)
    encoder = BpeEncoder(bpe)
    for length in range(1, 200):
        codes = np.full((1, length), ord("a"), dtype=np.int32)
        assert encoder(codes) == merged_by_library(bpe, codes)


def random_bpe(seed: int) -> ByteLevelBpe:
    """Return a BPE of three letters whose merges were drawn, not learnt."""
    generator = np.random.default_rng(seed)
    pieces, merges = ["a", "b", "c"], []
    while len(merges) < 12:
        first, second = generator.choice(pieces, 2)
        if (first, second) not in merges and len(first + second) < 9:
            merges.append((str(first), str(second)))
            pieces.append(str(first + second))
    vocab = {piece: n for n, piece in enumerate(dict.fromkeys(pieces))}
    return ByteLevelBpe(vocab, merges, regex_split=False)


def test_vocabularies_that_no_training_makes_give_the_same_ids() -> None:
    regular = 0
    for seed in range(60):
        bpe = random_bpe(seed)
        regular += PairTable(bpe).is_regular
        generator = np.random.default_rng(1000 + seed)
        codes = generator.integers(ord("a"), ord("d"), (40, 25)).astype(np.int32)
        assert BpeEncoder(bpe)(codes) == merged_by_library(bpe, codes)
    assert 0 < regular < 60  # both ways were taken


def test_missing_bytes_are_named_and_dropped_as_by_the_library() -> None:
    texts = texts_of(random_codes(100, 20, 100, 3, seed=1))
    bpe = train_bpe(texts, vocab_size=60, regex_split=True, symbols=["a"])
    encoder = BpeEncoder(bpe)
    codes = np.array([[100, 101, 33, 100], [100, 200, 100, 100]], dtype=np.int32)
    assert encoder.unknown_codes(codes) == [33, 200]
    assert encoder.unknown_codes(codes[:, :2][:1]) == []
    assert encoder(codes) == merged_by_library(bpe, codes)
