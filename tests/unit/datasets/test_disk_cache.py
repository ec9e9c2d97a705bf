# SPDX-License-Identifier: Apache-2.0
"""The frame cache on disk: equal frames, made once, never half, never of other data."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.unit.datasets.conftest import FEATURES, FPS
from vlakit.datasets import LeRobotDataset
from vlakit.datasets.config import DatasetConfig
from vlakit.datasets.reading.disk_cache import CacheName
from vlakit.datasets.reading.disk_cache_building import open_or_build
from vlakit.errors import ConfigError, DatasetError

TOP, WRIST = "observation.images.top", "observation.images.wrist"
INDICES = [20, 3, 33, 3, 0, 11, 12]


def open_with(root: Path, folder: Path, kind: Any = "raw", **settings: Any) -> LeRobotDataset:
    return LeRobotDataset(
        "me/toy", root, return_uint8=True, frame_cache=kind, frame_cache_dir=folder, **settings
    )


def caches(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


@pytest.mark.parametrize("windows", [None, {TOP: [-1 / FPS, 0.0], WRIST: [0.0]}])
def test_raw_frames_are_equal_to_decoded_ones(
    recorded: Path, tmp_path: Path, windows: dict[str, list[float]] | None
) -> None:
    cached = open_with(recorded, tmp_path, delta_timestamps=windows).get_batch(INDICES)
    decoded = LeRobotDataset("me/toy", recorded, return_uint8=True, delta_timestamps=windows)
    for name, expected in decoded.get_batch(INDICES).items():
        if isinstance(expected, Tensor):
            assert torch.equal(cached[name], expected), name
            assert cached[name].shape == expected.shape
        else:
            assert cached[name] == expected


def test_jpeg_frames_are_off_by_what_is_said(recorded: Path, tmp_path: Path) -> None:
    dataset = open_with(recorded, tmp_path, "jpeg")
    cache = dataset.frame_cache
    assert cache is not None
    assert cache["quality"] == 95
    plain = LeRobotDataset("me/toy", recorded, return_uint8=True)
    rows = list(range(len(plain)))
    ours, theirs = dataset.get_batch(rows), plain.get_batch(rows)
    error = torch.cat([(ours[name].int() - theirs[name].int()).abs().flatten()
                       for name in (TOP, WRIST)]).float()  # fmt: skip
    assert 0 < cache["mean_error"] < 4
    assert float(error.mean()) == pytest.approx(cache["mean_error"], rel=0.3)


def test_the_next_run_takes_what_is_there(recorded: Path, tmp_path: Path) -> None:
    first = open_with(recorded, tmp_path)
    (folder,) = caches(tmp_path)
    made = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}
    again = open_with(recorded, tmp_path)
    assert made == {path: (path.stat().st_ino, path.stat().st_mtime_ns)
                    for path in folder.iterdir()}  # fmt: skip
    assert torch.equal(first.get_batch([7])[TOP], again.get_batch([7])[TOP])


def test_other_data_get_another_cache(damaged: Path, tmp_path: Path) -> None:
    folder = tmp_path / "caches"
    open_with(damaged, folder)
    open_with(damaged, folder, episodes=[0, 2])
    open_with(damaged, folder, "jpeg")
    assert len(caches(folder)) == 3
    video = sorted((damaged / "videos").rglob("*.mp4"))[0]
    os.utime(video, ns=(0, 0))  # as new contents would
    open_with(damaged, folder)
    assert len(caches(folder)) == 4


@pytest.mark.parametrize("damage", ["short", "no content", "other key"])
def test_a_damaged_cache_is_built_anew_and_named(
    recorded: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    expected = open_with(recorded, tmp_path).get_batch(INDICES)
    (folder,) = caches(tmp_path)
    content = folder / "cache.json"
    if damage == "short":
        os.truncate(folder / "0.frames", 100)
    elif damage == "no content":
        content.write_text("{")
    else:
        content.write_text(json.dumps(json.loads(content.read_text()) | {"key": "0"}))
    batch = open_with(recorded, tmp_path).get_batch(INDICES)
    assert f"the frame cache is built anew: {folder}" in caplog.text
    assert torch.equal(batch[TOP], expected[TOP])


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_a_changed_frame_is_never_used(recorded: Path, tmp_path: Path, kind: str) -> None:
    open_with(recorded, tmp_path, kind)
    (folder,) = caches(tmp_path)
    with (folder / "0.frames").open("r+b") as file:
        file.seek(40)
        byte = file.read(1)[0]
        file.seek(40)
        file.write(bytes([byte ^ 1]))
    dataset = open_with(recorded, tmp_path, kind)
    dataset.get_batch([5])
    with pytest.raises(DatasetError, match=r"0\.frames: frame 0 is not what was written. Delete"):
        dataset.get_batch([0])


def test_what_a_killed_run_left_is_not_used(recorded: Path, tmp_path: Path) -> None:
    expected = open_with(recorded, tmp_path).get_batch(INDICES)
    (folder,) = caches(tmp_path)
    part = folder.rename(folder.with_name(f"{folder.name}.part"))
    (part / "cache.json").unlink()
    (part / "0.frames").write_bytes(b"half")
    batch = open_with(recorded, tmp_path).get_batch(INDICES)
    assert torch.equal(batch[TOP], expected[TOP])
    assert caches(tmp_path) == [folder]


def test_a_build_that_fails_leaves_nothing(damaged: Path, tmp_path: Path) -> None:
    video = sorted((damaged / "videos").rglob("*.mp4"))[-1]
    os.truncate(video, video.stat().st_size // 2)
    folder = tmp_path / "caches"
    with pytest.raises(DatasetError, match=video.name):
        open_with(damaged, folder)
    assert caches(folder) == []


def test_a_folder_that_cannot_be_written_is_said(recorded: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(DatasetError, match=r"cannot be written .* give --dataset.frame_cache_dir"):
        open_with(recorded, file)


def moving(camera: str, rows: np.ndarray) -> Tensor:
    """Frames whose pixels are their number; stands for a dataset with very many of them."""
    numbers = torch.from_numpy(rows % 251).to(torch.uint8)
    return numbers.view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"needs 64000000\.00 GB for .* has only [\d.]+ GB free"):
        open_or_build(
            tmp_path,
            CacheName("big", "raw", "0" * 64),
            moving,
            cameras=["a"],
            num_frames=10**15,
            num_workers=0,
        )
    assert caches(tmp_path) == []


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on machines with few cores
def test_several_processes_build_the_same(tmp_path: Path) -> None:
    num_frames = 5000
    cache = open_or_build(
        tmp_path,
        CacheName("many", "raw", "0" * 64),
        moving,
        cameras=["a", "b"],
        num_frames=num_frames,
        num_workers=2,
    )
    rows = np.arange(num_frames)
    for camera in ("a", "b"):
        assert torch.equal(cache.read(camera, rows), moving(camera, rows))


def test_frames_of_two_sizes_are_refused(tmp_path: Path) -> None:
    def read(camera: str, rows: np.ndarray) -> Tensor:
        return moving(camera, rows) if rows[0] < 64 else moving(camera, rows)[..., :2].contiguous()

    with pytest.raises(DatasetError, match=r"'a' has frames of \[3, 4, 4\] and of \[3, 4, 2\]"):
        open_or_build(
            tmp_path,
            CacheName("odd", "raw", "0" * 64),
            read,
            cameras=["a"],
            num_frames=100,
            num_workers=0,
        )
    assert caches(tmp_path) == []


def test_a_copy_maps_the_same_files(recorded: Path, tmp_path: Path) -> None:
    dataset = open_with(recorded, tmp_path)
    expected = dataset.get_batch(INDICES)
    message = pickle.dumps(dataset)
    height, width, channels = FEATURES[TOP]["shape"]
    assert len(message) < 20 * height * width * channels
    assert torch.equal(pickle.loads(message).get_batch(INDICES)[TOP], expected[TOP])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cache_frames": True, "frame_cache": "raw"}, "give one of the two"),
        ({"frame_cache_dir": "/x"}, "--dataset.frame_cache_dir=/x is not used"),
    ],
)
def test_flags_that_do_not_go_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DatasetConfig(repo_id="a/b", **settings)
