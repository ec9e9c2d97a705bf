# SPDX-License-Identifier: Apache-2.0
"""The metadata of a dataset, whichever of the two versions it is stored in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from vlakit.datasets.layout import INFO_PATH
from vlakit.datasets.metadata import DatasetMetadata
from vlakit.datasets.reading import v21, v30
from vlakit.errors import DatasetError
from vlakit.features import DEFAULT_FEATURES
from vlakit.files import read_json


def load_metadata(repo_id: str, root: Path) -> DatasetMetadata:
    """Read `meta/` of a dataset of version 3.0 or 2.1.

    Raises:
        DatasetError: a file is missing, damaged, of another version, or disagrees with another.
    """
    info = _read_info(root / INFO_PATH)
    version = _version(root, str(info["codebase_version"]))
    metadata = DatasetMetadata(
        repo_id,
        root,
        info,
        episodes=version.read_episodes(root, info),
        tasks=version.read_tasks(root),
        load_stats=partial(version.read_stats, root),
    )
    _check_totals(metadata)
    return metadata


def _version(root: Path, name: str) -> ModuleType:
    """Return the module that reads a version."""
    major, _, minor = name.lstrip("v").partition(".")
    if major == "3":
        return v30
    if (major, minor) == ("2", "1"):
        return v21
    is_newer = major.isdigit() and int(major) > 3
    todo = "Install a newer vlakit." if is_newer else "Convert it with LeRobot's scripts first."
    raise DatasetError(
        f"{root / INFO_PATH}: codebase_version is {name}; vlakit reads v3.0 and v2.1. {todo}"
    )


def _check_totals(metadata: DatasetMetadata) -> None:
    for key, found in (
        ("total_episodes", metadata.total_episodes),
        ("total_frames", metadata.total_frames),
    ):
        if metadata.info[key] != found:
            raise DatasetError(
                f"{metadata.root / INFO_PATH}: {key} is {metadata.info[key]}, but the episodes in "
                f"meta hold {found}. The recording was cut off or files are missing: fetch the "
                "dataset again or record it anew."
            )


def _read_info(path: Path) -> dict[str, Any]:
    info = read_json(
        path,
        DatasetError,
        missing=": the folder is not a LeRobot dataset, or its recording was never finalized. "
        "Check --dataset.root.",
        damaged="Fetch or write the dataset again.",
    )
    for key in ("codebase_version", "fps", "features", "total_episodes", "total_frames"):
        if key not in info:
            raise DatasetError(
                f"{path} lacks the key {key!r}, which every LeRobot dataset has; fetch it again."
            )
    if not isinstance(info["fps"], (int, float)) or info["fps"] <= 0:
        raise DatasetError(f"{path}: fps is {info['fps']!r}; expected a positive number.")
    features = info["features"]
    if not isinstance(features, dict):
        raise DatasetError(
            f"{path}: features is a {type(features).__name__}; expected an object with dtype and "
            "shape by name. Fetch the dataset again."
        )
    for name in DEFAULT_FEATURES:
        if name not in features:
            raise DatasetError(
                f"{path} lacks the feature {name!r}, which every LeRobot dataset has; fetch it "
                "again."
            )
    for name, entry in features.items():
        _check_feature(path, name, entry)
        entry["shape"] = tuple(entry["shape"])
    return info


def _check_feature(path: Path, name: str, entry: Any) -> None:
    if not isinstance(entry, Mapping) or "dtype" not in entry or "shape" not in entry:
        raise DatasetError(
            f"{path}: feature {name!r} needs dtype and shape, found {entry!r}; correct the file."
        )
    shape = entry["shape"]
    if not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
        raise DatasetError(
            f"{path}: feature {name!r} has the shape {shape!r}; expected a list of whole numbers. "
            "Correct the file."
        )
    details = entry.get("info") or entry.get("video_info") or {}
    if details.get("is_depth_map") or details.get("video.is_depth_map"):
        raise DatasetError(
            f"{path}: feature {name!r} is a depth camera, which vlakit cannot decode; remove the "
            "feature from the dataset."
        )
