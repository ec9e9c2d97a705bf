# SPDX-License-Identifier: Apache-2.0
"""What a tokenizer was fitted on, against what a policy does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vlakit.errors import CheckpointError
from vlakit.features import NormalizationMode
from vlakit.processing.fast.normalizer import NORMALIZER_FILE, FastNormalizer

FITTED = FastNormalizer(
    mode=NormalizationMode.QUANTILES,
    encoded_dims=[(0, 2), (2, 3)],
    relative_dims=[1, 0],
    stats={"q01": [-1.0, 0.0, -2.0], "q99": [1.0, 1.0, 2.0], "mean": [0.0, 0.0, 0.0]},
    repo_id="somebody/something",
    clip=True,
)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"encoded_dims": [(0, 3)]},
        {"relative_dims": [0, 1]},
        {"repo_id": "another/name", "clip": False},
        {"stats": FITTED.stats | {"mean": [9.0, 9.0, 9.0]}},
        {"stats": FITTED.stats | {"q99": [1.0 + 1e-7, 1.0, 2.0]}},
    ],
)
def test_the_same_normalisation(changes: dict[str, Any]) -> None:
    assert FITTED.difference(replace(FITTED, **changes)) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"mode": NormalizationMode.MEAN_STD},
            "normalisation mode: QUANTILES in the tokenizer, MEAN_STD in the policy",
        ),
        (
            {"encoded_dims": [(0, 4)]},
            "action dimensions: [0, 1, 2] in the tokenizer, [0, 1, 2, 3] in the policy",
        ),
        (
            {"relative_dims": []},
            "relative dimensions: [0, 1] in the tokenizer, [] in the policy",
        ),
        (
            {"stats": FITTED.stats | {"q99": [1.0, 1.5, 2.0]}},
            "statistic 'q99' of action dimension 1: 1 in the tokenizer, 1.5 in the policy",
        ),
        (
            {"stats": {"q01": [-1.0, 0.0, -2.0]}},
            "statistic 'q99' of action dimension 0: missing in the policy",
        ),
    ],
)
def test_the_first_difference_is_put_in_words(changes: dict[str, Any], words: str) -> None:
    assert FITTED.difference(replace(FITTED, **changes)) == words


def test_missing_statistics_of_the_tokenizer() -> None:
    words = replace(FITTED, stats={}).difference(FITTED)
    assert words == "statistic 'q01' of action dimension 0: missing in the tokenizer"


def test_saved_and_loaded(tmp_path: Path) -> None:
    assert FastNormalizer.load(tmp_path) is None
    FITTED.save(tmp_path)
    assert FastNormalizer.load(tmp_path) == FITTED


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "LOUD"},
        {"encoded_dims": [[0]]},
        {"encoded_dims": 3},
        {"stats": {"q01": ["x"]}},
        {"stats": []},
        {"relative_dims": None},
    ],
)
def test_damaged_files_are_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    content = FITTED.to_json() | changes
    (tmp_path / NORMALIZER_FILE).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"fast_normalizer\.json is damaged"):
        FastNormalizer.load(tmp_path)
