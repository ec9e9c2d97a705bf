# SPDX-License-Identifier: Apache-2.0
"""Damaged datasets: one error each, which names the file, what was expected and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fixtures_root import FIXTURE_ROOT
from tests.unit.datasets.conftest import FPS
from vlakit.datasets import LeRobotDataset
from vlakit.datasets.writing.video_encoding import VideoEncoding, encode_clip
from vlakit.errors import DatasetError

DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
VIDEO = "videos/observation.images.top/chunk-000/file-000.mp4"


def edit_info(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    change(info)
    path.write_text(json.dumps(info), encoding="utf-8")


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def open_all(root: Path, **options: Any) -> None:
    dataset = LeRobotDataset("me/toy", root, **options)
    dataset.get_batch(range(len(dataset)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i.pop("fps"), r"meta/info\.json lacks the key 'fps'"),
        (lambda i: i.pop("features"), r"meta/info\.json lacks the key 'features'"),
        (lambda i: i.pop("codebase_version"), r"info\.json lacks the key 'codebase_version'"),
        (lambda i: i.pop("data_path"), r"info\.json lacks the key 'data_path'"),
        (lambda i: i.pop("video_path"), r"info\.json lacks the key 'video_path'"),
        (lambda i: i.update(fps=0), r"info\.json: fps is 0; expected a positive number"),
        (
            lambda i: i.update(data_path="data/{episode_chunk}"),
            "does not fit version v3.0.*form data",
        ),
        (
            lambda i: i.update(codebase_version="v2.0"),
            r"codebase_version is v2\.0; vlakit reads v3\.0 and v2\.1\. Convert it",
        ),
        (
            lambda i: i.update(codebase_version="v4.0"),
            r"codebase_version is v4\.0; .*Install a newer vlakit",
        ),
        (
            lambda i: i.update(total_episodes=5),
            r"total_episodes is 5, but the episodes in meta hold 3.*cut off",
        ),
        (lambda i: i.update(total_frames=99), r"total_frames is 99, but .* hold 34"),
        (
            lambda i: i["features"]["action"].pop("shape"),
            "feature 'action' needs dtype and shape",
        ),
        (
            lambda i: i["features"]["action"].update(shape=[4]),
            r"file-000\.parquet: column 'action' holds .* shape \[4\]",
        ),
        (
            lambda i: i["features"].update(extra={"dtype": "float32", "shape": [2]}),
            r"file-000\.parquet lacks the column 'extra'.*info\.json",
        ),
        (
            lambda i: i["features"].update(other={"dtype": "video", "shape": [8, 8, 3]}),
            r"lacks the column 'videos/other/chunk_index'",
        ),
        (
            lambda i: i["features"]["observation.images.top"]["info"].update(is_depth_map=True),
            "feature 'observation.images.top' is a depth camera",
        ),
    ],
)
def test_a_wrong_info_json(
    damaged: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_info(damaged, change)
    with pytest.raises(DatasetError, match=message):
        open_all(damaged)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("meta/info.json", r"has no meta/info\.json: .*never finalized"),
        ("meta/tasks.parquet", r"tasks\.parquet is missing"),
        (EPISODES, r"meta/episodes holds no parquet file"),
        (DATA, r"data/chunk-000/file-000\.parquet is missing, although .* fetch the dataset again"),
        (VIDEO, r"file-000\.mp4 is missing, although"),
    ],
)
def test_a_missing_file(damaged: Path, path: str, message: str) -> None:
    (damaged / path).unlink()
    with pytest.raises(DatasetError, match=message):
        open_all(damaged)


@pytest.mark.parametrize("path", [DATA, EPISODES, "meta/tasks.parquet"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_cut_off_parquet(damaged: Path, path: str, share: float) -> None:
    cut(damaged / path, share)
    with pytest.raises(DatasetError, match=r"\.parquet is not a whole parquet file .* cut off"):
        open_all(damaged)


def test_info_json_that_is_no_json(damaged: Path) -> None:
    cut(damaged / "meta/info.json", 0.5)
    with pytest.raises(DatasetError, match=r"info\.json cannot be read as JSON .* again"):
        open_all(damaged)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_cut_off_video(damaged: Path, share: float) -> None:
    cut(damaged / VIDEO, share)
    with pytest.raises(
        DatasetError, match=r"file-000\.mp4 (cannot be decoded|has no frame at) .* again"
    ):
        open_all(damaged)


def test_a_video_that_is_something_else(damaged: Path) -> None:
    (damaged / VIDEO).write_text("not a video" * 100)
    with pytest.raises(
        DatasetError, match=r"file-000\.mp4 cannot be decoded .*expected a whole mp4"
    ):
        open_all(damaged)


def test_a_video_that_is_shorter_than_the_metadata_say(damaged: Path) -> None:
    frames = [np.zeros((32, 48, 3), np.uint8)] * 4
    (damaged / VIDEO).write_bytes(encode_clip(lambda: frames, FPS, VideoEncoding(vcodec="h264")))
    with pytest.raises(
        DatasetError, match=r"file-000\.mp4 has no frame at .* shorter than the meta"
    ):
        open_all(damaged)


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def test_an_episode_with_fewer_frames_than_promised(damaged: Path) -> None:
    rewrite(damaged / DATA, lambda table: table.slice(0, table.num_rows - 1))
    with pytest.raises(
        DatasetError,
        match=r"file-000\.parquet: episode \d has \d+ frames, but the metadata promise",
    ):
        open_all(damaged)


def test_frames_in_the_wrong_order(damaged: Path) -> None:
    rewrite(damaged / DATA, lambda t: t.take(list(reversed(range(t.num_rows)))))
    with pytest.raises(DatasetError, match=r"must follow one another with frame_index 0, 1, 2"):
        open_all(damaged)


def test_a_gap_in_the_table_of_episodes(damaged: Path) -> None:
    rewrite(damaged / EPISODES, lambda table: table.slice(1))
    with pytest.raises(DatasetError, match="episode_index must count from 0 without gaps"):
        open_all(damaged)


def test_an_unknown_task(damaged: Path) -> None:
    rewrite(damaged / "meta/tasks.parquet", lambda table: table.slice(0, 1))
    with pytest.raises(DatasetError, match=r"a frame has task_index 1, .* only 1 tasks"):
        open_all(damaged)


def test_a_picture_that_is_no_png(damaged: Path) -> None:
    def spoil(table: pa.Table) -> pa.Table:
        at = table.column_names.index("observation.images.wrist")
        cells = [{"bytes": b"nonsense", "path": "x"}] * table.num_rows
        return table.set_column(at, table.field(at), pa.array(cells, table.field(at).type))

    rewrite(damaged / DATA, spoil)
    with pytest.raises(DatasetError, match=r"picture 'observation.images.wrist' in row 0 cannot"):
        open_all(damaged)


def test_missing_statistics(damaged: Path) -> None:
    (damaged / "meta/stats.json").unlink()
    dataset = LeRobotDataset("me/toy", damaged)
    with pytest.raises(DatasetError, match=r"stats\.json is missing: .*write_stats"):
        _ = dataset.meta.stats


def test_statistics_that_lack_a_feature(damaged: Path) -> None:
    path = damaged / "meta/stats.json"
    stats = json.loads(path.read_text())
    del stats["action"]["std"]
    path.write_text(json.dumps(stats))
    with pytest.raises(DatasetError, match=r"lack std of feature 'action'.*write_stats"):
        _ = LeRobotDataset("me/toy", damaged).meta.stats


@pytest.mark.parametrize("episodes", [[7], [-1], []])
def test_episodes_that_do_not_exist(recorded: Path, episodes: list[int]) -> None:
    with pytest.raises(DatasetError, match=r"has episodes 0 to 2\. Correct --dataset\.episodes"):
        LeRobotDataset("me/toy", recorded, episodes=episodes)


@pytest.mark.parametrize(
    ("deltas", "message"),
    [
        ({"actoin": [0.0]}, r"names 'actoin', .* Did you mean 'action'\?"),
        ({"action": [0.05]}, r"0\.05 s, which is no multiple of 1/fps = 0\.1 s"),
    ],
)
def test_windows_that_do_not_fit(recorded: Path, deltas: dict, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        LeRobotDataset("me/toy", recorded, delta_timestamps=deltas)


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("meta/episodes.jsonl", "{", r"episodes\.jsonl cannot be read as JSON lines"),
        ("meta/episodes.jsonl", '{"episode_index": 0}', r"line 1, lacks 'tasks'; expected"),
        ("meta/tasks.jsonl", '{"task_index": 3, "task": "x"}', "task_index must count from 0"),
        ("meta/episodes_stats.jsonl", "", "lack max, mean, min, std of feature"),
    ],
)
def test_damaged_tables_of_version_2(tmp_path: Path, path: str, text: str, message: str) -> None:
    root = Path(shutil.copytree(FIXTURE_ROOT / "dataset/v2.1", tmp_path / "old"))
    (root / path).chmod(0o644)
    (root / path).write_text(text)
    with pytest.raises(DatasetError, match=message):
        _ = LeRobotDataset("me/old", root).meta.stats


def test_version_2_without_chunks_size(tmp_path: Path) -> None:
    root = Path(shutil.copytree(FIXTURE_ROOT / "dataset/v2.1", tmp_path / "old"))
    (root / "meta/info.json").chmod(0o644)
    edit_info(root, lambda info: info.pop("chunks_size"))
    with pytest.raises(DatasetError, match=r"lacks the key 'chunks_size', which version v2\.1 has"):
        LeRobotDataset("me/old", root)
