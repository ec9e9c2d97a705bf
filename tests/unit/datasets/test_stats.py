# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vlakit.datasets import LeRobotDataset, LeRobotDatasetWriter
from vlakit.datasets.feature_stats import (
    QUANTILES,
    PixelHistogram,
    aggregate_reference,
    array_stats,
    image_stride,
    sampled_frames,
)
from vlakit.datasets.stats import write_stats
from vlakit.errors import DatasetError

numbers = arrays(
    np.float32,
    st.tuples(st.integers(1, 30), st.integers(1, 4)),
    elements=st.floats(-1e3, 1e3, width=32),
)


@given(values=numbers)
def test_array_stats_are_numpys(values: np.ndarray) -> None:
    stats = array_stats(values)
    wide = values.astype(np.float64)
    np.testing.assert_array_equal(stats["min"], wide.min(axis=0))
    np.testing.assert_array_equal(stats["max"], wide.max(axis=0))
    np.testing.assert_allclose(stats["std"], wide.std(axis=0))
    assert stats["count"].tolist() == [len(values)]
    ordered = [stats["min"], *(stats[name] for name in QUANTILES), stats["max"]]
    assert all((low <= high + 1e-9).all() for low, high in pairwise(ordered))


def test_a_feature_of_several_axes_has_the_statistics_of_its_last() -> None:
    values = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
    stats, flat = array_stats(values), values.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(stats["mean"], flat.mean(axis=0))
    np.testing.assert_allclose(stats["q10"], np.quantile(flat, 0.1, axis=0))
    assert stats["count"].tolist() == [7]
    assert array_stats(values, per_element=True)["std"].shape == (2, 3)


def test_a_constant_dimension_has_equal_quantiles() -> None:
    stats = array_stats(np.full((50, 1), 0.3, dtype=np.float32))
    assert stats["q01"] == stats["q99"] == stats["min"]


@given(
    images=arrays(
        np.uint8, st.tuples(st.integers(1, 4), st.just(3), st.integers(1, 5), st.integers(1, 5))
    )
)
def test_pixel_histogram_equals_numpy_on_all_pixels(images: np.ndarray) -> None:
    histogram = PixelHistogram(3)
    for image in images:
        histogram.add(image[None])
    stats = histogram.stats()
    pixels = images.transpose(1, 0, 2, 3).reshape(3, -1) / 255
    for name, share in QUANTILES.items():
        expected = np.quantile(pixels, share, axis=1)
        np.testing.assert_allclose(stats[name].ravel(), expected, atol=1e-12)
    np.testing.assert_allclose(stats["mean"].ravel(), pixels.mean(axis=1))
    np.testing.assert_allclose(stats["std"].ravel(), pixels.std(axis=1), atol=1e-12)
    np.testing.assert_array_equal(stats["min"].ravel(), pixels.min(axis=1))
    np.testing.assert_array_equal(stats["max"].ravel(), pixels.max(axis=1))
    assert stats["mean"].shape == (3, 1, 1)
    assert stats["count"].tolist() == [len(images)]


@given(values=numbers, cut=st.integers(1, 29))
def test_folding_gives_the_whole_except_for_quantiles(values: np.ndarray, cut: int) -> None:
    parts = [part for part in (values[:cut], values[cut:]) if len(part)]
    folded = aggregate_reference([{"x": array_stats(part)} for part in parts])["x"]
    whole = array_stats(values)
    for name in ("min", "max", "count"):
        np.testing.assert_array_equal(folded[name], whole[name])
    np.testing.assert_allclose(folded["mean"], whole["mean"], atol=1e-9)
    np.testing.assert_allclose(folded["std"], whole["std"], atol=1e-6)


def test_folded_quantiles_are_not_those_of_the_data() -> None:
    episodes = [{"x": array_stats(np.full((10, 1), value))} for value in (0.0, -1.0, -2.0)]
    folded = aggregate_reference(episodes)["x"]
    assert folded["q01"] == folded["q99"] == pytest.approx(-1)
    true = array_stats(np.repeat([0.0, -1.0, -2.0], 10))
    assert (true["q01"], true["q99"]) == (-2, 0)


@pytest.mark.parametrize(
    ("length", "count"), [(1, 1), (100, 100), (101, 100), (1000, 177), (10**6, 10_000)]
)
def test_sampled_frames_follow_the_references_rule(length: int, count: int) -> None:
    frames = sampled_frames(length)
    assert len(frames) == count
    assert (frames[0], frames[-1]) == (0, length - 1)


def test_large_images_are_thinned() -> None:
    assert (image_stride(240, 299), image_stride(480, 640), image_stride(84, 84)) == (1, 4, 1)


def test_write_stats_replaces_a_missing_file(damaged: Path) -> None:
    path = damaged / "meta/stats.json"
    before = json.loads(path.read_text())
    path.unlink()
    write_stats(LeRobotDataset("me/toy", damaged))
    after = json.loads(path.read_text())
    assert after.keys() == before.keys()
    np.testing.assert_allclose(after["action"]["q10"], before["action"]["q10"])
    wrist = "observation.images.wrist"
    np.testing.assert_allclose(after[wrist]["mean"], before[wrist]["mean"])


def test_write_stats_wants_the_whole_dataset(recorded: Path) -> None:
    with pytest.raises(DatasetError, match=r"got 7 of 34 frames; open .* without episodes="):
        write_stats(LeRobotDataset("me/toy", recorded, episodes=[1]))


def test_quantiles_a_dataset_lacks_come_from_its_data(damaged: Path) -> None:
    path = damaged / "meta/stats.json"
    stats = json.loads(path.read_text())
    expected = {name: dict(entry) for name, entry in stats.items()}
    for entry in stats.values():
        for name in QUANTILES:
            del entry[name]
    path.write_text(json.dumps(stats))
    completed = LeRobotDataset("me/toy", damaged).meta.stats
    for feature in ("action", "observation.images.wrist"):
        for name in QUANTILES:
            np.testing.assert_allclose(completed[feature][name], expected[feature][name])


def test_an_observation_of_several_axes_has_statistics_that_fit_its_shape(tmp_path: Path) -> None:
    features = {"observation.grid": {"dtype": "float32", "shape": (2, 3)}}
    with LeRobotDatasetWriter.create("me/grid", 10, features, tmp_path / "grid") as writer:
        for step in range(4):
            grid = np.full((2, 3), step, dtype=np.float32)
            writer.add_frame({"observation.grid": grid, "task": "t"})
        writer.save_episode()
    stats = LeRobotDataset("me/grid", tmp_path / "grid").meta.stats
    assert stats["observation.grid"]["mean"].tolist() == [1.5] * 3
