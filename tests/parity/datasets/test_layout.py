# SPDX-License-Identifier: Apache-2.0
"""What we write has the layout of what LeRobot 0.6.1 wrote: its recording, made again by us."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.fixtures_root import FIXTURE_ROOT
from vlakit.datasets import LeRobotDataset, LeRobotDatasetWriter
from vlakit.features import DEFAULT_FEATURES

ORIGINAL = FIXTURE_ROOT / "dataset" / "v3.0"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    original = LeRobotDataset("fixture", ORIGINAL, return_uint8=True)
    features = {
        name: {key: value for key, value in entry.items() if key != "info"}
        for name, entry in original.features.items()
        if name not in DEFAULT_FEATURES
    }
    root = tmp_path_factory.mktemp("layout") / "ours"
    with LeRobotDatasetWriter.create(
        "fixture", 10, features, root, "toy_arm", vcodec="h264", crf=18, encoder_threads=1
    ) as writer:
        for index in range(len(original)):
            item = original[index]
            writer.add_frame(
                {name: item[name].numpy() for name in features} | {"task": item["task"]}
            )
            if index + 1 in original.frames.episode_bounds[1]:
                writer.save_episode()
    return root


def test_the_same_files_are_there(ours: Path) -> None:
    def tree(root: Path) -> list[str]:
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    assert tree(ours) == tree(ORIGINAL)


def test_info_json_is_equal(ours: Path) -> None:
    expected, found = (
        json.loads((root / "meta/info.json").read_text(encoding="utf-8"))
        for root in (ORIGINAL, ours)
    )
    assert found == expected
    assert list(found) == list(expected)
    assert list(found["features"]) == list(expected["features"])


@pytest.mark.parametrize(
    "path",
    [
        "data/chunk-000/file-000.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/tasks.parquet",
    ],
)
def test_parquet_schemas_and_row_groups_are_equal(ours: Path, path: str) -> None:
    expected, found = (pq.ParquetFile(root / path) for root in (ORIGINAL, ours))
    assert found.schema_arrow.equals(expected.schema_arrow, check_metadata=False)
    assert [found.metadata.row_group(i).num_rows for i in range(found.num_row_groups)] == [
        expected.metadata.row_group(i).num_rows for i in range(expected.num_row_groups)
    ]
    for column in range(expected.metadata.num_columns):
        assert (
            found.metadata.row_group(0).column(column).compression
            == expected.metadata.row_group(0).column(column).compression
        )


def test_schema_metadata_describe_the_same_features(ours: Path) -> None:
    path = "data/chunk-000/file-000.parquet"
    described = [
        json.loads(pq.read_schema(root / path).metadata[b"huggingface"])
        for root in (ORIGINAL, ours)
    ]
    assert described[0]["info"] == described[1]["info"]
    assert described[0].keys() == described[1].keys()
    pandas = [
        json.loads(pq.read_schema(root / "meta/tasks.parquet").metadata[b"pandas"])
        for root in (ORIGINAL, ours)
    ]
    for entry in pandas:
        entry.pop("creator")
    assert pandas[0] == pandas[1]


def test_the_table_of_episodes_holds_equal_values(ours: Path) -> None:
    path = "meta/episodes/chunk-000/file-000.parquet"
    expected, found = (pq.read_table(root / path).to_pydict() for root in (ORIGINAL, ours))
    for name, values in expected.items():
        if not name.startswith("stats/"):
            exact = "timestamp" not in name  # those differ by the rounding of sums
            assert found[name] == (values if exact else pytest.approx(values)), name
        elif name.endswith(("min", "max")) and "top" not in name:
            # LeRobot's image statistics are float32, ours float64.
            np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)


def test_pictures_are_equal_to_the_byte_values(ours: Path) -> None:
    first, second = (LeRobotDataset("x", root, return_uint8=True) for root in (ORIGINAL, ours))
    key = "observation.images.wrist"
    assert (first.read_images(key, range(77)) == second.read_images(key, range(77))).all()
