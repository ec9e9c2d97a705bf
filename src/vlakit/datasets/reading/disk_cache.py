# SPDX-License-Identifier: Apache-2.0
"""All camera frames in files that every process of every run maps: decoded once, on disk.

A cache is a folder, `<dataset's name>-<kind>-<key>`, where the key stands for everything that its
frames depend on: the files of the dataset (names, sizes, times), the episodes, the decoder and its
version. So a dataset that changes gets another cache, and an old one is never taken for it. In the
folder, for each camera: `<n>.frames` (the frames one after another) and `<n>.index.npy` (where each
begins, and its checksum, looked at when a process first reads the frame); and `cache.json`.

`raw` frames are equal to decoded ones to the bit. `jpeg` ones are not: `cache.json` has their mean
and largest error.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from vlakit.datasets.metadata import DatasetMetadata
from vlakit.errors import DatasetError
from vlakit.files import read_json

FORMAT = 1
CONTENT = "cache.json"
JPEG_QUALITY = 95
"""With full colour resolution (4:4:4)."""


@dataclass(frozen=True)
class CacheName:
    """Which frames a cache holds."""

    label: str
    kind: str
    """'raw' or 'jpeg'."""
    key: str
    """Hash of everything that the frames depend on."""

    def folder(self, parent: Path) -> Path:
        """Return where the cache lies."""
        return parent / f"{self.label}-{self.kind}-{self.key[:16]}"


def cache_name(
    meta: DatasetMetadata, episodes: Sequence[int], kind: str, backend: str | None
) -> CacheName:
    """Return the name of the cache of these episodes' frames, whose files must be there.

    Raises:
        DatasetError: a file is missing.
    """
    paths = [meta.root / path for path in meta.files_of(episodes)]
    for pattern in ("info.json", "episodes.jsonl", "episodes/*/*.parquet"):
        paths += sorted((meta.root / "meta").glob(pattern))
    stamps = []
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise DatasetError(
                f"{path} is missing, although the dataset's meta names it; fetch the dataset again."
            ) from error
        stamps.append([str(path.relative_to(meta.root)), status.st_size, status.st_mtime_ns])
    source = {
        "format": FORMAT,
        "kind": kind,
        "quality": JPEG_QUALITY if kind == "jpeg" else None,
        "decoder": _decoder(backend),
        "episodes": sorted(episodes),
        "cameras": meta.camera_keys,
        "files": stamps,
    }
    key = hashlib.sha256(json.dumps(source).encode()).hexdigest()
    return CacheName(meta.repo_id.replace("/", "__"), kind, key)


def _decoder(backend: str | None) -> list[str]:
    name = backend or "pyav"
    try:
        return [name, version("av" if name == "pyav" else name)]
    except PackageNotFoundError:
        return [name, "not installed"]  # which the first video will say


class DiskCache:
    """The frames of a cache that is whole; copies in other processes map the same files."""

    def __init__(self, folder: Path, name: CacheName) -> None:
        """Open a cache.

        Raises:
            DatasetError: it is not there, damaged, or another one.
        """
        self.folder = folder
        content = read_json(
            folder / CONTENT, DatasetError, missing=".", damaged="Delete the folder."
        )
        self._check(content, name)
        self.kind: str = content["kind"]
        self.content = content
        self._cameras = {camera: _Camera(folder, entry) for camera, entry in
                         content["cameras"].items()}  # fmt: skip

    def _check(self, content: dict[str, Any], name: CacheName) -> None:
        if content.get("key") != name.key or content.get("kind") != name.kind:
            raise DatasetError(f"{self.folder} is the cache of another dataset. Delete the folder.")
        for file, expected in content["bytes"].items():
            path = self.folder / file
            found = path.stat().st_size if path.is_file() else None
            if found != expected:
                raise DatasetError(
                    f"{path} has {found} bytes; expected {expected}. Delete the folder."
                )

    def read(self, camera: str, rows: np.ndarray) -> Tensor:
        """Return frames of a camera.

        Args:
            camera: the feature.
            rows: (batch, [window]) rows of the dataset that the cache was made for.

        Returns:
            uint8 (batch, [window,] channels, height, width).

        Raises:
            DatasetError: a frame is damaged.
        """
        return self._cameras[camera].read(rows)


class _Camera:
    """The frames of one camera; the files are mapped at the first read of each process."""

    def __init__(self, folder: Path, entry: dict[str, Any]) -> None:
        self._folder, self._entry = folder, entry
        self._close()

    def _close(self) -> None:
        self._pages: memoryview | None = None
        self._index = np.empty((0, 2), dtype=np.int64)
        self._seen = np.empty(0, dtype=bool)

    def __getstate__(self) -> dict[str, Any]:
        return {"_folder": self._folder, "_entry": self._entry}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._close()

    def _opened(self) -> memoryview:
        if self._pages is None:
            path = self._folder / self._entry["frames"]
            try:
                with path.open("rb") as file:
                    self._pages = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                self._index = np.load(self._folder / self._entry["index"], mmap_mode="r")
            except (OSError, ValueError) as error:
                raise DatasetError(
                    f"{path} cannot be read ({error}). Delete its folder: the frame cache is then "
                    "built anew."
                ) from error
            self._seen = np.zeros(len(self._index) - 1, dtype=bool)
        return self._pages

    def read(self, rows: np.ndarray) -> Tensor:
        pages, shape = self._opened(), tuple(self._entry["shape"])
        frames = np.empty((rows.size, *shape), dtype=np.uint8)
        for place, row in enumerate(rows.ravel().tolist()):
            data = pages[int(self._index[row, 0]) : int(self._index[row + 1, 0])]
            if not self._seen[row]:
                if zlib.crc32(data) != self._index[row, 1]:
                    raise self._damaged(row)
                self._seen[row] = True
            if self._entry["compressed"]:
                frames[place] = self._picture(data, row)
            else:
                frames[place] = np.frombuffer(data, dtype=np.uint8).reshape(shape)
        return torch.from_numpy(frames).unflatten(0, rows.shape)

    def _picture(self, data: memoryview, row: int) -> np.ndarray:
        try:
            return from_jpeg(data)
        except (UnidentifiedImageError, OSError) as error:
            raise self._damaged(row) from error

    def _damaged(self, row: int) -> DatasetError:
        return DatasetError(
            f"{self._folder / self._entry['frames']}: frame {row} is not what was written. Delete "
            "the folder: the frame cache is then built anew. Look at the disk if it happens again."
        )


def to_jpeg(frame: np.ndarray) -> bytes:
    """Return a frame, uint8 (1 or 3, height, width), as a JPEG."""
    pixels = np.ascontiguousarray(frame.transpose(1, 2, 0))
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def from_jpeg(data: bytes | memoryview) -> np.ndarray:
    """Return the frame of a JPEG, uint8 (1 or 3, height, width)."""
    with Image.open(io.BytesIO(data)) as picture:
        pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
