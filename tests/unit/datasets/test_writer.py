# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.unit.datasets.conftest import EPISODES, FEATURES, FPS, all_frames, make_frame, record
from vlakit.datasets import LeRobotDataset, LeRobotDatasetWriter
from vlakit.datasets.feature_stats import QUANTILES
from vlakit.datasets.metadata import DatasetMetadata
from vlakit.errors import DatasetError

NUMBERS = {"observation.state": {"dtype": "float32", "shape": (5,)}}


def create(root: Path, features: dict[str, Any] | None = None, **settings: Any):
    settings = {"vcodec": "h264", "encoder_threads": 1} | settings
    return LeRobotDatasetWriter.create("me/toy", FPS, features or FEATURES, root, **settings)


def test_one_row_group_per_episode(recorded: Path) -> None:
    lengths = []
    for path in sorted(recorded.glob("data/*/*.parquet")):
        file = pq.ParquetFile(path)
        lengths += [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert lengths == [length for length, _ in EPISODES]


def test_files_roll_over_by_size(recorded: Path) -> None:
    meta = LeRobotDataset("me/toy", recorded).meta
    assert meta.episodes.data_paths[0].endswith("file-000.parquet")
    assert len(set(meta.episodes.data_paths)) > 1
    spans = meta.episodes.videos["observation.images.top"]
    assert len(set(spans.paths)) > 1
    for episode in range(3):
        is_first = episode == 0 or spans.paths[episode] != spans.paths[episode - 1]
        assert (spans.from_timestamps[episode] == 0) == is_first


def test_many_episodes_fill_chunks_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlakit.datasets.writing.rolling_files.CHUNKS_SIZE", 4)
    with create(tmp_path / "toy", NUMBERS, data_files_size_in_mb=0) as writer:
        for episode in range(23):
            writer.add_frame({"observation.state": np.full(5, episode, np.float32), "task": "x"})
            writer.save_episode()
    dataset = LeRobotDataset("me/toy", tmp_path / "toy")
    assert dataset.meta.episodes.data_paths[22] == "data/chunk-005/file-002.parquet"
    assert dataset.get_batch(range(23))["observation.state"][:, 0].tolist() == list(range(23))
    tables = sorted((tmp_path / "toy/meta/episodes").rglob("*.parquet"))
    assert [pq.read_metadata(path).num_rows for path in tables] == [10, 10, 3]


def test_quantiles_are_those_of_all_frames(recorded: Path) -> None:
    stats = LeRobotDataset("me/toy", recorded).meta.stats
    actions = np.stack([frame["action"] for frame in all_frames()]).astype(np.float64)
    for name, share in QUANTILES.items():
        np.testing.assert_allclose(stats["action"][name], np.quantile(actions, share, axis=0))
    images = np.stack([frame["observation.images.wrist"] for frame in all_frames()]) / 255
    for channel in range(3):
        expected = np.quantile(images[..., channel], 0.9)
        assert stats["observation.images.wrist"]["q90"][channel, 0, 0] == pytest.approx(expected)
    assert stats["observation.images.top"]["count"] == [34]


def test_tasks_are_numbered_by_first_appearance(tmp_path: Path) -> None:
    with create(tmp_path / "toy", NUMBERS) as writer:
        for tasks in (["b", "a", "b"], ["c", "a"]):
            for task in tasks:
                writer.add_frame({"observation.state": np.zeros(5, np.float32), "task": task})
            writer.save_episode()
    dataset = LeRobotDataset("me/toy", tmp_path / "toy")
    assert dataset.meta.tasks == ["b", "a", "c"]
    assert [dataset[i]["task"] for i in range(5)] == ["b", "a", "b", "c", "a"]
    assert dataset.meta.episodes[1]["tasks"] == ["c", "a"]


def test_discarded_frames_leave_no_trace(tmp_path: Path) -> None:
    with create(tmp_path / "toy", NUMBERS) as writer:
        for value, keep in ((1, True), (2, False), (3, True)):
            for _ in range(3):
                state = np.full(5, value, np.float32)
                writer.add_frame({"observation.state": state, "task": f"task {value}"})
            assert writer.episode_length == 3
            writer.save_episode() if keep else writer.discard_episode()
    dataset = LeRobotDataset("me/toy", tmp_path / "toy")
    assert dataset.meta.tasks == ["task 1", "task 3"]
    assert dataset.get_batch(range(6))["observation.state"][:, 0].tolist() == [1, 1, 1, 3, 3, 3]


def test_the_callers_frame_stays_as_it_is(tmp_path: Path) -> None:
    with create(tmp_path / "toy", NUMBERS) as writer:
        state = np.zeros(5, np.float32)
        frame = {"observation.state": state, "task": "x"}
        writer.add_frame(frame)
        state += 1  # a simulator may reuse its array
        writer.save_episode()
        assert frame.keys() == {"observation.state", "task"}
    assert LeRobotDataset("me/toy", tmp_path / "toy")[0]["observation.state"].sum() == 0


def test_cameras_may_be_floats_channels_first_or_last(tmp_path: Path) -> None:
    features = {"observation.image": {"dtype": "image", "shape": (3, 4, 6)}}
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    with create(tmp_path / "toy", features) as writer:
        for image in (pixels, pixels.transpose(2, 0, 1), (pixels / 255).astype(np.float32)):
            writer.add_frame({"observation.image": image, "task": "x"})
        writer.save_episode()
    dataset = LeRobotDataset("me/toy", tmp_path / "toy", return_uint8=True)
    for index in range(3):
        np.testing.assert_array_equal(
            dataset[index]["observation.image"].permute(1, 2, 0).numpy(), pixels
        )


def test_use_videos_false_stores_pictures(tmp_path: Path) -> None:
    root = record(tmp_path / "toy", use_videos=False)
    dataset = LeRobotDataset("me/toy", root, return_uint8=True)
    assert dataset.features["observation.images.top"]["dtype"] == "image"
    assert not (root / "videos").exists()
    np.testing.assert_array_equal(
        dataset[20]["observation.images.top"].permute(1, 2, 0).numpy(),
        all_frames()[20]["observation.images.top"],
    )


@pytest.mark.parametrize("vcodec", ["libsvtav1", "hevc"])
def test_other_codecs_come_back(tmp_path: Path, vcodec: str) -> None:
    camera = {"observation.image": {"dtype": "video", "shape": (64, 64, 3)}}
    ramp = np.linspace(40, 200, 64)
    with create(tmp_path / "toy", camera, vcodec=vcodec) as writer:
        for _ in range(2):
            for step in range(5):
                image = np.repeat((ramp[None] + np.zeros((64, 1)))[..., None], 3, -1) + 8 * step
                writer.add_frame({"observation.image": image.astype(np.uint8), "task": "x"})
            writer.save_episode()
    dataset = LeRobotDataset("me/toy", tmp_path / "toy")
    for index in (9, 0, 4, 5):
        expected = (ramp + 8 * (index % 5)).astype(np.uint8) / 255
        error = np.abs(dataset[index]["observation.image"].numpy() - expected).mean()
        assert error < 0.02
    codec = {"libsvtav1": "av1", "hevc": "hevc"}[vcodec]
    assert dataset.features["observation.image"]["info"]["video.codec"] == codec


def test_resume_appends_new_files(tmp_path: Path) -> None:
    root = record(tmp_path / "toy")
    before = LeRobotDataset("me/toy", root, return_uint8=True)
    writer = LeRobotDatasetWriter.resume("me/toy", root, encoder_threads=1)
    for step in range(6):
        writer.add_frame(make_frame(3, step, 6, "new task"))
    writer.save_episode()
    assert len(LeRobotDataset("me/toy", root)) == 34  # until it is finalized
    writer.finalize()
    after = LeRobotDataset("me/toy", root, return_uint8=True)
    assert (after.num_episodes, len(after)) == (4, 40)
    assert after.meta.tasks == ["pick", "place – überall", "new task"]
    for index in (0, 33):
        for name, value in before[index].items():
            np.testing.assert_array_equal(np.asarray(after[index][name]), np.asarray(value))
    np.testing.assert_array_equal(after[36]["action"], make_frame(3, 2, 6, "")["action"])
    assert (
        after.meta.stats["action"]["count"] == after.meta.stats["observation.images.top"]["count"]
    )
    assert json.loads((root / "meta/info.json").read_text())["splits"] == {"train": "0:4"}


def test_resume_without_new_episodes_changes_nothing(tmp_path: Path) -> None:
    root = record(tmp_path / "toy", NUMBERS)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    with LeRobotDatasetWriter.resume("me/toy", root):
        pass
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == {
        path: time for path, time in before.items() if path.is_file()
    }


def test_an_error_while_recording_keeps_the_saved_episodes(tmp_path: Path) -> None:
    def interrupted() -> None:
        with create(tmp_path / "toy", NUMBERS) as writer:
            for _ in range(3):
                writer.add_frame({"observation.state": np.zeros(5, np.float32), "task": "x"})
            writer.save_episode()
            writer.add_frame({"observation.state": np.ones(5, np.float32), "task": "x"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(LeRobotDataset("me/toy", tmp_path / "toy")) == 3


def test_a_killed_recording_is_no_dataset(tmp_path: Path) -> None:
    root = tmp_path / "toy"
    script = textwrap.dedent(f"""
        import os, numpy as np
        from vlakit.datasets import LeRobotDatasetWriter
        features = {{"observation.state": {{"dtype": "float32", "shape": (5,)}}}}
        writer = LeRobotDatasetWriter.create("me/toy", 10, features, {str(root)!r})
        for _ in range(2):
            writer.add_frame({{"observation.state": np.zeros(5, np.float32), "task": "x"}})
            writer.save_episode()
        os._exit(9)
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == 9
    with pytest.raises(DatasetError, match=r"has no meta/info\.json: .*never finalized"):
        LeRobotDataset("me/toy", root)
    assert not [p for p in root.rglob("*") if p.suffix in (".parquet", ".mp4", ".json")]


def test_nothing_recorded_leaves_no_folder(tmp_path: Path) -> None:
    writer = create(tmp_path / "toy", NUMBERS)
    with pytest.raises(DatasetError, match=r"no episode was saved, so .*toy was removed"):
        writer.finalize()
    assert not (tmp_path / "toy").exists()


def test_the_folder_must_be_new(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"exists already; .* Remove it or give another root"):
        create(tmp_path, NUMBERS)


def test_the_default_root_is_lerobots_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path))
    with LeRobotDatasetWriter.create("me/toy", FPS, NUMBERS) as writer:
        writer.add_frame({"observation.state": np.zeros(5, np.float32), "task": "x"})
        writer.save_episode()
    assert LeRobotDataset("me/toy").root == tmp_path / "me/toy"


def good_frame() -> dict[str, Any]:
    return make_frame(0, 0, 5, "pick")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": None}, r"frame 0 lacks 'action'; expected observation\.state"),
        ({"task": None}, "frame 0 lacks 'task'"),
        ({"actoin": np.zeros(3)}, r"has 'actoin', which is no feature.*Did you mean 'action'\?"),
        ({"timestamp": 0.0}, "has 'timestamp', which is no feature"),
        (
            {"action": np.zeros(3)},
            r"'action' is float64 \[3\], expected float32 \[3\]; convert it before add_frame",
        ),
        ({"action": np.zeros(4, np.float32)}, r"'action' is float32 \[4\], expected float32 \[3\]"),
        ({"action": np.full(3, np.nan, np.float32)}, "'action' holds NaN or infinity"),
        ({"grid": np.full((2, 3), np.inf, np.float32)}, "'grid' holds NaN or infinity"),
        ({"note": 3}, "'note' is int, expected a text"),
        ({"task": ""}, "'task' is ''; expected a non-empty text"),
        (
            {"observation.images.top": np.zeros((32, 40, 3), np.uint8)},
            r"camera 'observation\.images\.top' has shape \[32, 40, 3\], expected \[32, 48, 3\]",
        ),
        (
            {"observation.images.top": np.full((32, 48, 3), 2.0)},
            r"is float64 and leaves \[0, 1\]; give uint8",
        ),
        ({"observation.images.top": np.zeros((32, 48, 3), np.int64)}, "is int64; expected uint8"),
    ],
)
def test_a_wrong_frame_is_refused_and_not_kept(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    frame = {k: v for k, v in (good_frame() | change).items() if v is not None}
    writer = create(tmp_path / "toy")
    with pytest.raises(DatasetError, match=message):
        writer.add_frame(frame)
    assert writer.episode_length == 0
    writer.add_frame(good_frame())
    writer.save_episode()
    writer.finalize()
    assert len(LeRobotDataset("me/toy", tmp_path / "toy")) == 1


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("a/b", {"dtype": "float32", "shape": (1,)}, "must not be empty or contain '/'"),
        ("index", {"dtype": "int64", "shape": (1,)}, "'index' is written by the writer itself"),
        ("action", {"dtype": "float32"}, "needs 'dtype' and 'shape'"),
        ("action", {"dtype": "float31", "shape": (1,)}, "has dtype 'float31'; expected image"),
        ("action", {"dtype": "float32", "shape": ()}, r"has shape \(\); expected 1 to 5 sizes"),
        ("cam", {"dtype": "video", "shape": (8, 8, 1)}, r"camera 'cam' has shape \(8, 8, 1\)"),
        ("cam", {"dtype": "image", "shape": (8, 8)}, r"camera 'cam' has shape \(8, 8\)"),
        ("cam", {"dtype": "video", "shape": (9, 8, 3)}, "camera 'cam' is 8x9; .* even sides"),
    ],
)
def test_a_feature_that_cannot_be_stored(
    tmp_path: Path, name: str, entry: dict[str, Any], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        create(tmp_path / "toy", {name: entry})
    assert not (tmp_path / "toy").exists()


def test_wrong_settings(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"vcodec='h265' is unknown; .* Did you mean 'h264'\?"):
        create(tmp_path / "toy", vcodec="h265")
    with pytest.raises(DatasetError, match=r"fps=29.97: expected a whole number"):
        LeRobotDatasetWriter.create("me/toy", 29.97, NUMBERS, tmp_path / "toy")  # type: ignore
    writer = create(tmp_path / "toy", NUMBERS)
    with pytest.raises(DatasetError, match="save_episode without frames"):
        writer.save_episode()


def test_a_finalized_writer_takes_no_more(tmp_path: Path) -> None:
    with create(tmp_path / "toy", NUMBERS) as writer:
        writer.add_frame({"observation.state": np.zeros(5, np.float32), "task": "x"})
        writer.save_episode()
    with pytest.raises(DatasetError, match="was finalized; start a new dataset"):
        writer.add_frame({"observation.state": np.zeros(5, np.float32), "task": "x"})


def test_the_metadata_class_is_public(recorded: Path) -> None:
    meta = LeRobotDataset("me/toy", recorded).meta
    assert isinstance(meta, DatasetMetadata)
    assert (meta.fps, meta.robot_type, meta.total_episodes) == (FPS, "toy", 3)
    assert meta.episodes[1] == {
        "episode_index": 1,
        "tasks": ["place – überall"],
        "length": 7,
        "dataset_from_index": 12,
        "dataset_to_index": 19,
    }
