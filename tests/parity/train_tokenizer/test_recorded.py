# SPDX-License-Identifier: Apache-2.0
"""The same dataset and flags give LeRobot's training chunks, tokens and metadata."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

from tests.fixtures_root import FIXTURE_ROOT
from vlakit.processing import FastTokenizer
from vlakit.training.fast_tokenizer.data import TrainingData, read_training_data
from vlakit.training.fast_tokenizer.fit import fit
from vlakit.training.tokenizer_config import TokenizerFlags

FOLDER = FIXTURE_ROOT / "dataset"
NAMES = ["quantiles", "sampled_relative_meanstd"]


def training_data(name: str, version: str = "v3.0", **changes: Any) -> TrainingData:
    specification = json.loads((FOLDER / "dataset.json").read_text(encoding="utf-8"))
    arguments = specification["fast_training"][name]["args"] | {"reference": True} | changes
    root = str(FOLDER / version)
    return read_training_data(TokenizerFlags(repo_id="fixtures/toy", root=root, **arguments))


def recorded_chunks(name: str) -> np.ndarray:
    path = FOLDER / f"fast_{name}" / "training_chunks.safetensors"
    return load_file(path)["encoded_normalized_chunks"]


def pieces(tokenizer: FastTokenizer, chunks: np.ndarray) -> list[list[bytes]]:
    """Ids differ, as our vocabularies hold all bytes: what tokens spell must not."""
    return [[tokenizer.token_bytes[id_] for id_ in row] for row in tokenizer.encode(chunks)]


@pytest.mark.parametrize("name", NAMES)
def test_training_chunks_are_the_recorded_ones(name: str) -> None:
    chunks, expected = training_data(name).training, recorded_chunks(name)
    assert chunks.shape == expected.shape
    np.testing.assert_allclose(chunks, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_tokens_and_metadata_are_the_recorded_ones(name: str) -> None:
    fitted = fit(training_data(name), Console(quiet=True))
    recorded = FastTokenizer.from_pretrained(FOLDER / f"fast_{name}")
    chunks = recorded_chunks(name)
    assert pieces(fitted.tokenizer, chunks) == pieces(recorded, chunks)
    assert fitted.tokenizer.min_token == recorded.min_token
    text = (FOLDER / f"fast_{name}" / "metadata.json").read_text(encoding="utf-8")
    assert json.loads(json.dumps(fitted.metadata())) == json.loads(text)


def test_version_2_1_gives_the_same_chunks() -> None:
    chunks = training_data("sampled_relative_meanstd", "v2.1").training
    np.testing.assert_allclose(chunks, recorded_chunks("sampled_relative_meanstd"), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_lerobots_rule_leaves_chunks_that_cannot_be_encoded_and_ours_does_not(name: str) -> None:
    quiet = Console(quiet=True)
    sample = fit(training_data(name), quiet)
    assert sample.measured.saturated_chunks > 0
    assert any("Fit without --reference" in notice for notice in sample.notices())
    ours = fit(training_data(name, reference=False), quiet)
    assert ours.measured.saturated_chunks == 0
    assert ours.tokenizer.min_token == ours.measured.lowest_coefficient
    assert ours.metadata()["num_training_chunks"] == sample.metadata()["num_training_chunks"]


def test_without_relative_dimensions_the_sample_is_lerobots_either_way() -> None:
    ours = training_data("quantiles", reference=False).sampled
    np.testing.assert_array_equal(ours, training_data("quantiles").sampled)
