# SPDX-License-Identifier: Apache-2.0
"""`info.json` of a new dataset, from features that the format can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlakit.datasets.layout import CHUNKS_SIZE, CODEBASE_VERSION, DATA_PATH, VIDEO_PATH
from vlakit.datasets.writing.video_encoding import VideoEncoding
from vlakit.errors import DatasetError
from vlakit.features import CAMERA_DTYPES, DEFAULT_FEATURES, TASK

MAX_AXES = 5


def new_info(
    features: Mapping[str, Mapping[str, Any]],
    *,
    fps: int,
    robot_type: str | None,
    use_videos: bool,
    encoding: VideoEncoding,
    data_files_size_in_mb: float,
    video_files_size_in_mb: float,
) -> dict[str, Any]:
    """Return `info.json` of a dataset without episodes; arguments as `LeRobotDatasetWriter.create`.

    Raises:
        DatasetError: a feature or the frame rate is nothing that the format can hold.
    """
    if not isinstance(fps, int) or fps < 1:
        raise DatasetError(f"fps={fps!r}: expected a whole number of frames per second.")
    checked = check_features(features)
    for name, entry in checked.items():
        if entry["dtype"] == "video" and not use_videos:
            entry["dtype"] = "image"
        if entry["dtype"] == "video":
            height, width, _ = image_size(entry["shape"])
            _check_even(name, height, width)
            entry["info"] = encoding.info(height, width, fps)
    has_videos = any(entry["dtype"] == "video" for entry in checked.values())
    return {
        "codebase_version": CODEBASE_VERSION,
        "fps": fps,
        "features": checked,
        "total_episodes": 0,
        "total_frames": 0,
        "total_tasks": 0,
        "chunks_size": CHUNKS_SIZE,
        "data_files_size_in_mb": data_files_size_in_mb,
        "video_files_size_in_mb": video_files_size_in_mb,
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if has_videos else None,
        "robot_type": robot_type,
        "splits": {},
    }


def check_features(features: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the features of a new dataset, LeRobot's own ones appended, shapes as lists.

    Raises:
        DatasetError: a name, dtype or shape that the format cannot hold.
    """
    checked = {}
    for name, entry in features.items():
        if "/" in name or not name:
            raise DatasetError(
                f"feature name {name!r} must not be empty or contain '/'; rename it."
            )
        if name in DEFAULT_FEATURES or name == TASK:
            raise DatasetError(f"feature {name!r} is written by the writer itself; leave it out.")
        if "dtype" not in entry or "shape" not in entry:
            raise DatasetError(f"feature {name!r} needs 'dtype' and 'shape', got {dict(entry)}.")
        shape = tuple(entry["shape"])
        if not shape or len(shape) > MAX_AXES or any(size < 1 for size in shape):
            raise DatasetError(
                f"feature {name!r} has shape {shape}; expected 1 to {MAX_AXES} sizes of at least 1."
            )
        _check_dtype(name, entry["dtype"], shape)
        checked[name] = {**entry, "shape": list(shape), "names": entry.get("names")}
        if entry["dtype"] in CAMERA_DTYPES and not entry.get("names"):
            order = ["channels", "height", "width"]
            checked[name]["names"] = [*order[1:], order[0]] if shape[2] in (1, 3) else order
    return {**checked, **{name: dict(entry) for name, entry in DEFAULT_FEATURES.items()}}


def _check_dtype(name: str, dtype: str, shape: tuple[int, ...]) -> None:
    if dtype in CAMERA_DTYPES:
        channels = image_size(shape)[2] if len(shape) == 3 else 0
        if channels != 3 and (dtype == "video" or channels != 1):
            raise DatasetError(
                f"camera {name!r} has shape {shape}; expected (height, width, 3) or (3, height, "
                "width), and for dtype 'image' also 1 channel."
            )
        return
    if dtype == "string":
        return
    try:
        kind = np.dtype(dtype).kind
    except TypeError:
        kind = "?"
    if kind not in "biuf" or np.dtype(dtype).name != dtype:
        raise DatasetError(
            f"feature {name!r} has dtype {dtype!r}; expected image, video, string or a numpy name "
            "such as float32, int64 or bool."
        )


def image_size(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return (height, width, channels) of a camera's declared shape, channels first or last."""
    return (shape[0], shape[1], shape[2]) if shape[2] in (1, 3) else (shape[1], shape[2], shape[0])


def _check_even(name: str, height: int, width: int) -> None:
    if height % 2 or width % 2:
        raise DatasetError(
            f"camera {name!r} is {width}x{height}; a yuv420p video needs even sides. Crop or "
            "resize it, or store it with dtype 'image'."
        )
