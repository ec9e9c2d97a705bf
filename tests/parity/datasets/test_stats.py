# SPDX-License-Identifier: Apache-2.0
"""Statistics: the reference's rule is reproduced, and our quantiles are those of the data."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from tests.fixtures_root import FIXTURE_ROOT
from vlakit.datasets import LeRobotDataset
from vlakit.datasets.feature_stats import (
    QUANTILES,
    Stats,
    aggregate_reference,
    parse_stats,
)
from vlakit.datasets.stats import compute_stats

FOLDER = FIXTURE_ROOT / "dataset"


def per_episode_stats() -> list[Stats]:
    table = pq.read_table(FOLDER / "v3.0/meta/episodes/chunk-000/file-000.parquet")
    episodes = []
    for row in table.to_pylist():
        nested: dict[str, dict] = {}
        for column, value in row.items():
            if column.startswith("stats/"):
                _, feature, name = column.split("/")
                nested.setdefault(feature, {})[name] = value
        episodes.append(parse_stats(nested))
    return episodes


def test_folding_episodes_equals_the_references_stats() -> None:
    folded = aggregate_reference(per_episode_stats())
    recorded = load_file(FOLDER / "stats.safetensors")
    assert len(recorded) == sum(len(entry) for entry in folded.values())
    for key, expected in recorded.items():
        feature, name = key.rsplit(".", 1)
        # 1e-6 relative: the fixtures' own tolerance; std is a difference of large numbers.
        np.testing.assert_allclose(folded[feature][name], expected, rtol=1e-6, atol=1e-12)


def test_true_statistics_equal_the_references_except_quantiles() -> None:
    dataset = LeRobotDataset("fixture", FOLDER / "v3.0")
    stats = compute_stats(dataset)
    for feature, entry in dataset.meta.stats.items():
        # LeRobot sums pixels in float32 (up to 0.1 % off in `mean`, 3 % in `std`), ours is exact;
        # videos are compared after decoding. Its std of numbers comes from float32 squares.
        tolerance = 0.03 if feature in dataset.meta.camera_keys else 1e-6
        for name in ("min", "max", "mean", "std", "count"):
            assert stats[feature][name].shape == entry[name].shape, (feature, name)
            if feature in dataset.meta.video_keys and name in ("min", "max"):
                continue
            np.testing.assert_allclose(stats[feature][name], entry[name], tolerance, 1e-7)


def test_true_quantiles_are_numpys() -> None:
    dataset = LeRobotDataset("fixture", FOLDER / "v3.0")
    stats = compute_stats(dataset)
    written = load_file(FOLDER / "written_state_action.safetensors")
    for name, share in QUANTILES.items():
        expected = np.quantile(written["actions"].astype(np.float64), share, axis=0)
        np.testing.assert_allclose(stats["action"][name], expected, rtol=1e-12)
    # The reference's q50 of `index` 0..76 is 37.7, although the median is 38.
    assert stats["index"]["q50"] == pytest.approx(38)


def test_statistics_of_version_2_equal_those_after_the_references_conversion() -> None:
    stats = LeRobotDataset("fixture", FOLDER / "v2.1").meta.stats
    converted = json.loads((FOLDER / "v2.1_converted_meta/stats.json").read_text(encoding="utf-8"))
    for feature, entry in parse_stats(converted).items():
        for name, expected in entry.items():
            np.testing.assert_allclose(stats[feature][name], expected, rtol=1e-6, atol=1e-7)
        assert QUANTILES.keys() <= stats[feature].keys()
    written = load_file(FOLDER / "written_state_action.safetensors")
    expected = np.quantile(written["states"].astype(np.float64), 0.99, axis=0)
    np.testing.assert_allclose(stats["observation.state"]["q99"], expected, rtol=1e-12)
