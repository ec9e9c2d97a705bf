# SPDX-License-Identifier: Apache-2.0
"""The figures of the report, against what they are defined as."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.unit.training.fast_tokenizer.conftest import Reader
from vlakit.policies.pi0_fast.action_tokens import PREFIX_PIECES, ActionVocabulary
from vlakit.processing import FastTokenizer
from vlakit.processing.fast.dct import quantized_dct
from vlakit.training.fast_tokenizer.fit import Fitted, fit
from vlakit.training.fast_tokenizer.report import FIXED_TOKENS, Spread, evenly, measure

QUIET = Console(quiet=True)


@pytest.fixture
def fitted(read: Reader) -> Fitted:
    return fit(read(action_horizon=8, vocab_size=400), QUIET)


def test_figures_are_those_of_the_chunks_a_policy_meets(fitted: Fitted) -> None:
    chunks, tokenizer, measured = fitted.data.chunks, fitted.tokenizer, fitted.measured
    values = chunks.met(chunks.all_rows)
    ids = tokenizer.encode(values)
    lengths = [len(row) for row in ids]
    error = np.abs(tokenizer.decode(ids) - values)
    assert measured.num_chunks == len(values) == 101
    assert measured.tokens == Spread.of(np.array(lengths))
    assert measured.compression_ratio == pytest.approx(8 * 7 / np.mean(lengths))
    assert measured.error.max == pytest.approx(error.max())
    assert measured.vocabulary_used == len({id_ for row in ids for id_ in row})
    gripper = measured.error_by_dimension[6]
    assert (gripper.dim, gripper.name) == (6, "gripper")
    assert gripper.normalized.mean == pytest.approx(error[:, :, 6].mean())
    assert gripper.physical.max == pytest.approx(error[:, :, 6].max() * chunks.unit[6])


def test_an_error_is_bounded_by_the_scale(fitted: Fitted) -> None:
    # Rounding moves a coefficient by half a step at most, and the transform keeps lengths.
    assert fitted.measured.error.max <= 0.5 / fitted.tokenizer.scale * np.sqrt(8)


def test_saturation_is_counted(read: Reader) -> None:
    data = read(action_horizon=8, reference=True, normalization_mode="QUANTILE10")
    fitted = fit(data, QUIET)
    values = data.chunks.met(data.chunks.all_rows)
    low = quantized_dct(values, 10.0) < fitted.tokenizer.min_token
    assert fitted.measured.saturated_coefficients == pytest.approx(low.mean())
    assert fitted.measured.saturated_chunks == pytest.approx(low.any(axis=1).mean())
    assert fitted.measured.saturated_chunks > 0
    assert fitted.measured.lowest_coefficient < fitted.tokenizer.min_token
    assert any("which encoding loses. Fit without --reference" in n for n in fitted.notices())


@pytest.mark.parametrize("mode", ["MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10", "IDENTITY"])
def test_every_chunk_of_the_dataset_can_be_encoded_by_default(read: Reader, mode: str) -> None:
    data = read(action_horizon=8, normalization_mode=mode, sample_fraction=0.05)
    fitted = fit(data, QUIET)
    values = data.chunks.met(data.chunks.all_rows)
    decoded = fitted.tokenizer.decode(fitted.tokenizer.encode(values))  # raises where it cannot
    assert fitted.measured.saturated_chunks == 0
    assert np.abs(decoded - values).max() <= 0.5 / 10 * np.sqrt(8)


def test_the_tokens_around_the_codes_are_counted() -> None:
    prefix_ids = tuple(range(20, 20 + len(PREFIX_PIECES)))
    sizes = {"text_vocab_size": 4096, "num_pieces": 4097, "skip_tokens": 128}
    fixed = {"bos_id": 2, "eos_id": 1, "pad_id": 0, "bar_id": 10, "prefix_ids": prefix_ids}
    vocabulary = ActionVocabulary(**sizes, fast_vocab_size=512, **fixed)
    assert len(vocabulary.training_ids([1, 2, 3], "lerobot")) == 3 + FIXED_TOKENS


def test_what_is_needed_of_max_action_tokens(fitted: Fitted) -> None:
    need, tokens = fitted.measured.max_action_tokens(), fitted.measured.tokens
    assert need["max"] == tokens.max + FIXED_TOKENS
    assert tokens.p99 + FIXED_TOKENS <= need["p99"] <= need["max"]


def test_fewer_chunks_are_spread_evenly(fitted: Fitted) -> None:
    rows = fitted.data.chunks.all_rows
    assert evenly(rows, 4).tolist() == [0, 33, 67, 100]
    some = measure(fitted.tokenizer, fitted.data.chunks, max_chunks=10)
    assert some.num_chunks == 10


def test_what_is_saved_loads_and_says_what_it_was_fitted_on(fitted: Fitted, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    loaded = FastTokenizer.from_pretrained(tmp_path)
    assert loaded.normalizer == fitted.data.normalizer()
    assert loaded.normalizer is not None
    assert (loaded.normalizer.mode, loaded.normalizer.clip) == ("QUANTILES", True)
    assert loaded.normalizer.encoded_dims == [(0, 7)]
    assert loaded.encode(fitted.data.sampled) == fitted.tokenizer.encode(fitted.data.sampled)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["chunks"] == {
        "training": 74, "episodes": 4, "episodes_too_short": 1, "dataset": 101, "measured": 101,
    }  # fmt: skip
    assert report["max_action_tokens"] == fitted.measured.max_action_tokens()
    metadata = json.loads((tmp_path / "metadata.json").read_text(encoding="utf-8"))
    assert (metadata["encoded_dims"], metadata["num_training_chunks"]) == ("0:7", 73)


def test_without_the_split_there_are_fewer_tokens(read: Reader, fitted: Fitted) -> None:
    joined = fit(read(action_horizon=8, vocab_size=400, regex_split=False), QUIET)
    assert joined.measured.tokens.mean <= fitted.measured.tokens.mean
    assert joined.measured.error == fitted.measured.error
