# SPDX-License-Identifier: Apache-2.0
"""Chunks to ids and back: what comes back, and that nothing is lost without a word."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.unit.processing.fast.random_chunks import fitted, smooth_chunks
from vlakit.errors import ActionDecodeError, ConfigError, ProcessingError, VlakitError
from vlakit.processing import FastTokenizer
from vlakit.processing.fast import tokenizer as tokenizer_module
from vlakit.processing.fast.dct import quantized_dct

SHAPES = [(10, 7), (1, 4), (16, 1), (1, 1), (50, 2), (3, 32)]


@pytest.mark.parametrize("regex_split", [True, False])
@pytest.mark.parametrize(("horizon", "action_dim"), SHAPES)
def test_every_coefficient_comes_back_exactly(
    horizon: int, action_dim: int, regex_split: bool
) -> None:
    for seed, size in enumerate([1.0, 1.0, 0.2, 5.0]):
        chunks = smooth_chunks(60, horizon, action_dim, seed=seed, size=size)
        tokenizer = FastTokenizer.train(chunks, vocab_size=300, regex_split=regex_split)
        decoded = tokenizer.decode(tokenizer.encode(chunks))
        # Half a step per coefficient, and the transform keeps lengths.
        error = np.linalg.norm((decoded - chunks).reshape(len(chunks), -1), axis=1)
        assert error.max() <= 0.5 / tokenizer.scale * np.sqrt(horizon * action_dim)
        np.testing.assert_array_equal(
            quantized_dct(decoded, tokenizer.scale), quantized_dct(chunks, tokenizer.scale)
        )


def test_a_batch_is_encoded_and_decoded_as_each_chunk_alone() -> None:
    chunks = smooth_chunks(50, 10, 4, seed=7, size=0.6)
    tokenizer = fitted()
    ids = tokenizer.encode(chunks)
    assert ids == [tokenizer.encode(chunk)[0] for chunk in chunks]
    decoded = tokenizer.decode(ids)
    alone = np.concatenate([tokenizer.decode([row]) for row in ids])
    np.testing.assert_allclose(decoded, alone, atol=1e-14)


def test_batches_above_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = smooth_chunks(50, 10, 4, seed=7, size=0.6)
    ids = fitted().encode(chunks)
    monkeypatch.setattr(tokenizer_module, "_BLOCK_NUMBERS", 3 * 40)
    assert fitted().encode(chunks) == ids


def test_zeros_and_empty_batches() -> None:
    tokenizer = fitted()
    ids = tokenizer.encode(np.zeros((2, 10, 4)))
    assert ids[0] == ids[1]
    assert not tokenizer.decode(ids).any()
    assert tokenizer.encode(np.zeros((0, 10, 4))) == []
    assert tokenizer.decode([]).shape == (0, 10, 4)


def test_tensors_and_lower_precision_are_taken() -> None:
    chunks = smooth_chunks(5, 10, 4, seed=3, size=0.6).astype(np.float32)
    ids = fitted().encode(chunks)
    assert fitted().encode(torch.from_numpy(chunks)) == ids
    assert fitted().encode(chunks.astype(np.float64)) == ids


def test_large_coefficients_are_spelled_and_come_back() -> None:
    tokenizer = fitted()
    chunk = np.zeros((1, 10, 4))
    chunk[0, :, 0] = 300.0
    decoded = tokenizer.decode(tokenizer.encode(chunk))
    np.testing.assert_allclose(decoded, chunk, atol=0.05)


@pytest.mark.parametrize("on_error", ["raise", "reference"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused_always(value: float, on_error: str) -> None:
    chunks = np.zeros((4, 10, 4))
    chunks[2:, 3, 1] = value
    with pytest.raises(ProcessingError, match=r"^chunk 2 \(and 1 more\) holds NaN or infinity"):
        fitted().encode(chunks, on_error=on_error)


def test_saturation_is_refused_with_row_and_coefficient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_module, "_BLOCK_NUMBERS", 40)
    tokenizer = fitted()
    chunks = np.zeros((5, 10, 4))
    chunks[3, :, 0] = -30.0
    with pytest.raises(ProcessingError, match=r"^chunk 3: a coefficient of -949 is below the low"):
        tokenizer.encode(chunks)
    decoded = tokenizer.decode(tokenizer.encode(chunks, on_error="reference"))
    assert decoded[3, 0, 0] == pytest.approx(tokenizer.min_token / 10 / np.sqrt(10))


@pytest.mark.parametrize("on_error", ["raise", "reference"])
def test_codes_that_are_no_characters_are_refused_always(on_error: str) -> None:
    for value in (1750.0, 1e5, 1e300):  # a surrogate, beyond Unicode, beyond int32
        chunks = np.zeros((2, 10, 4))
        chunks[1, :, 0] = value
        with pytest.raises(ProcessingError, match=r"^chunk 1 has coefficients that no"):
            fitted().encode(chunks, on_error=on_error)


def test_bytes_outside_the_vocabulary_are_refused_with_their_coefficients() -> None:
    chunks = smooth_chunks(100, 10, 4)
    tokenizer = FastTokenizer.train(chunks, vocab_size=300, alphabet="reference")
    chunk = np.zeros((2, 10, 4))
    chunk[1, :, 2] = 20.0
    with pytest.raises(ProcessingError, match=r"^chunk 1: .* the coefficients \[632\]"):
        tokenizer.encode(chunk)
    ids = tokenizer.encode(chunk, on_error="reference")
    with pytest.raises(ActionDecodeError, match=r"not 40"):
        tokenizer.decode(ids)


@pytest.mark.parametrize("shape", [(4,), (1, 2, 3, 4), (2, 0, 4), (2, 10, 0)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ProcessingError, match=r"expected numbers of shape \(batch, horizon"):
        fitted().encode(np.zeros(shape))


def test_every_row_that_spells_no_chunk_is_named_with_its_reason() -> None:
    tokenizer = fitted()
    good = tokenizer.encode(smooth_chunks(1, 10, 4, size=0.5))[0]
    half = tokenizer.token_bytes.index(b"\xc3")
    ids = [good, good[:-1], [*good, tokenizer.vocab_size], [-401], [half, *good], [], good]
    with pytest.raises(ActionDecodeError) as caught:
        tokenizer.decode(ids)
    failures = caught.value.failures
    assert list(failures) == [1, 2, 3, 4, 5]
    assert "coefficients, not 40" in failures[1]
    assert failures[2] == "id 400 is outside the vocabulary (0 to 399)"
    assert failures[3] == "id -401 is outside the vocabulary (0 to 399)"
    assert failures[4] == "byte 0 of what its ids spell is no valid UTF-8"
    assert failures[5] == "its ids spell 0 coefficients, not 40"
    assert str(caught.value).startswith("5 of 7 rows spell no action chunk of 10 x 4; row 1: ")


def test_rows_beside_a_failed_one_decode_all_the_same() -> None:
    tokenizer = fitted()
    ids = tokenizer.encode(smooth_chunks(3, 10, 4, size=0.5))
    whole = tokenizer.decode(ids)
    ids[1] = ids[1][:-1]
    decoded = tokenizer.decode(ids, on_error="reference")
    assert not decoded[1].any()
    np.testing.assert_allclose(decoded[[0, 2]], whole[[0, 2]], atol=1e-14)


def test_relaxed_decoding_keeps_the_low_frequencies() -> None:
    tokenizer = fitted()
    ids = tokenizer.encode(smooth_chunks(1, 10, 4, size=0.5))[0]
    coefficients = quantized_dct(tokenizer.decode([ids]), 10.0)
    cut = quantized_dct(tokenizer.decode([ids[:-2]], on_error="relaxed"), 10.0)
    kept = len(b"".join(tokenizer.token_bytes[token] for token in ids[:-2]).decode())
    np.testing.assert_array_equal(cut[0, :kept], coefficients[0, :kept])
    assert not cut[0, kept:].any()
    longer = quantized_dct(tokenizer.decode([ids + ids], on_error="relaxed"), 10.0)
    np.testing.assert_array_equal(longer, coefficients)


def test_random_ids_fail_as_the_library_spells_them() -> None:
    tokenizer = fitted()
    library = tokenizer._bpe.to_library()
    generator = np.random.default_rng(0)
    rows = generator.integers(0, tokenizer.vocab_size, (300, 12)).tolist()
    for row in rows:
        text = library.decode(row, skip_special_tokens=False)
        sizes = {"horizon": 1, "action_dim": len(text)}
        lenient = tokenizer.decode([row], **sizes, on_error="reference")
        codes = np.rint(lenient[0, 0] * tokenizer.scale).astype(int) - tokenizer.min_token
        assert "".join(map(chr, codes)) == text
        if "\ufffd" in text:
            with pytest.raises(ActionDecodeError, match="no valid UTF-8"):
                tokenizer.decode([row], **sizes)
        else:
            np.testing.assert_array_equal(tokenizer.decode([row], **sizes), lenient)


def test_sizes_are_given_or_stored() -> None:
    tokenizer = fitted()
    ids = tokenizer.encode(np.zeros((1, 10, 4)))
    assert tokenizer.decode(ids, horizon=5, action_dim=8).shape == (1, 5, 8)
    with pytest.raises(ActionDecodeError, match="spell 40 coefficients, not 44"):
        tokenizer.decode(ids, horizon=11)
    with pytest.raises(ConfigError, match="horizon is 0, expected at least 1"):
        tokenizer.decode(ids, horizon=0)


def test_decode_failures_are_values_and_vlakit_errors() -> None:
    error = ActionDecodeError("no chunk", {3: "too short"})
    assert isinstance(error, VlakitError)
    assert isinstance(error, ValueError)
    assert error.failures == {3: "too short"}
    assert ActionDecodeError("no chunk").failures == {}


def test_a_replacement_character_is_neither_written_nor_read() -> None:
    """Spelled honestly, it is the mark of a broken character all the same."""
    tokenizer = fitted()
    ids = [tokenizer.token_bytes.index(bytes([byte])) for byte in "\ufffd".encode()]
    with pytest.raises(ActionDecodeError, match=r"row 0: its ids spell U\+FFFD") as caught:
        tokenizer.decode([ids], horizon=1, action_dim=1)
    assert list(caught.value.failures) == [0]
    chunk = tokenizer.decode([ids], horizon=1, action_dim=1, on_error="reference")
    assert round(chunk[0, 0, 0] * tokenizer.scale) == 0xFFFD + tokenizer.min_token
    with pytest.raises(ProcessingError, match="coefficients that no character stands for"):
        tokenizer.encode(chunk)
    assert tokenizer.encode(chunk, on_error="reference") == [ids]
    near = chunk + np.array([[[1.0]], [[-1.0]]]) / tokenizer.scale
    again = tokenizer.decode(tokenizer.encode(near), horizon=1, action_dim=1)
    np.testing.assert_allclose(again, near, rtol=1e-12)
    with pytest.raises(ProcessingError, match="no character stands for"):
        FastTokenizer.train([[[0.0]], [[0xFFFD / 10]]], scale=10.0)
