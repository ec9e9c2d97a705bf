# SPDX-License-Identifier: Apache-2.0
"""Builds the frame cache on disk: whole or not at all, by one process at a time."""

from __future__ import annotations

import errno
import fcntl
import logging
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vlakit.datasets.reading.disk_cache import (
    CONTENT,
    FORMAT,
    JPEG_QUALITY,
    CacheName,
    DiskCache,
    from_jpeg,
    to_jpeg,
)
from vlakit.datasets.reading.worker_copy import SharedReader
from vlakit.errors import DatasetError
from vlakit.files import write_json

logger = logging.getLogger(__name__)

ReadImages = Callable[[str, np.ndarray], Tensor]
"""camera and rows (n,) -> uint8 (n, channels, height, width)."""

_BLOCK = 64
_PROBES = 16
"""Frames of a camera that are encoded to guess the size of all."""
_ERROR_STRIDE = 16
"""Of every so many frames one is decoded again for the error of the JPEGs."""
_WORTH_WORKERS = 4096
"""Frames from which on it pays to start processes."""


def open_or_build(
    parent: Path, name: CacheName, read_images: ReadImages, *, cameras: Sequence[str],
    num_frames: int, num_workers: int,
) -> DiskCache:  # fmt: skip
    """Return the cache of these frames, built now where there is none, or a damaged one.

    Args:
        parent: folder of all caches.
        name: of this one.
        read_images: decodes.
        cameras: which to decode.
        num_frames: frames of each.
        num_workers: processes that decode, for more than a few frames.

    Raises:
        DatasetError: the disk is too small, or the folder cannot be written.
    """
    folder = name.folder(parent)
    if (folder / CONTENT).is_file() and (cache := _usable(folder, name)) is not None:
        return cache
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            # Another run may have built it while this one waited.
            if (folder / CONTENT).is_file() and (cache := _usable(folder, name)) is not None:
                return cache
            source = _Blocks(read_images, cameras, num_frames, name.kind)
            _check_room(parent, source)
            _build(folder, name, source, num_workers if num_frames > _WORTH_WORKERS else 0)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return DiskCache(folder, name)


def _usable(folder: Path, name: CacheName) -> DiskCache | None:
    try:
        return DiskCache(folder, name)
    except DatasetError as error:
        logger.warning("the frame cache is built anew: %s", error)
        return None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for other processes that build the same; a killed one lets go."""
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass
class _Block:
    """Some frames of a camera as they are stored."""

    camera: str
    frames: Any
    """What is written: contiguous bytes."""
    sizes: list[int]
    checksums: list[int]
    errors: list[tuple[float, int]] = field(default_factory=list)
    """Mean and largest difference of a pixel, of the frames looked at."""
    shape: tuple[int, ...] = ()


class _Blocks(Dataset):
    """Decodes and encodes one block of frames; runs in the workers."""

    def __init__(
        self, read_images: ReadImages, cameras: Sequence[str], num_frames: int, kind: str
    ) -> None:
        self.read_images, self.cameras = read_images, list(cameras)
        self.num_frames, self.kind = num_frames, kind
        self.blocks_per_camera = -(-num_frames // _BLOCK)

    def __len__(self) -> int:
        return len(self.cameras) * self.blocks_per_camera

    def __getitem__(self, index: int) -> _Block | DatasetError:
        camera, block = divmod(index, self.blocks_per_camera)
        rows = np.arange(block * _BLOCK, min((block + 1) * _BLOCK, self.num_frames))
        try:
            return self.encoded(self.cameras[camera], rows)
        except DatasetError as error:
            return error

    def encoded(self, camera: str, rows: np.ndarray) -> _Block:
        """Return these frames of a camera as they are stored."""
        frames = self.read_images(camera, rows)
        arrays = frames.numpy()
        shape = tuple(arrays.shape[1:])
        if self.kind == "raw":
            sums = [zlib.crc32(frame) for frame in arrays]
            return _Block(camera, frames, [frames[0].nbytes] * len(rows), sums, shape=shape)
        pictures = [to_jpeg(frame) for frame in arrays]
        errors = [_difference(frame, picture)
                  for frame, picture in zip(arrays[::_ERROR_STRIDE], pictures[::_ERROR_STRIDE],
                                            strict=True)]  # fmt: skip
        sums = [zlib.crc32(picture) for picture in pictures]
        return _Block(camera, b"".join(pictures), [*map(len, pictures)], sums, errors, shape)


def _difference(frame: np.ndarray, picture: bytes) -> tuple[float, int]:
    error = np.abs(frame.astype(np.int16) - from_jpeg(picture))
    return float(error.mean()), int(error.max())


def _check_room(parent: Path, source: _Blocks) -> None:
    """Raise DatasetError where the cache would not fit on the disk."""
    need = 0.0
    for camera in source.cameras:
        rows = np.linspace(0, source.num_frames - 1, min(_PROBES, source.num_frames))
        sizes = source.encoded(camera, np.unique(rows.astype(np.int64))).sizes
        need += source.num_frames * (sum(sizes) / len(sizes) + 16)  # and the index
    need *= 1.0 if source.kind == "raw" else 1.2  # the frames looked at may be the easy ones
    free = shutil.disk_usage(parent).free
    if need > free:
        about = "" if source.kind == "raw" else "about "
        other = " or --dataset.frame_cache=jpeg" if source.kind == "raw" else ""
        raise DatasetError(
            f"--dataset.frame_cache={source.kind} needs {about}{need / 1e9:.2f} GB for "
            f"{source.num_frames} frames of {len(source.cameras)} cameras, but {parent} has only "
            f"{free / 1e9:.2f} GB free. Give --dataset.frame_cache_dir on a larger disk, fewer "
            f"--dataset.episodes{other}."
        )


def _cannot_write(folder: Path, error: OSError) -> DatasetError:
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return DatasetError(
        f"{folder}: the frame cache cannot be written ({error}). "
        + ("Make room" if is_full else "Make the folder writable")
        + ", or give --dataset.frame_cache_dir another folder. Nothing half-built is left."
    )


def _build(folder: Path, name: CacheName, source: _Blocks, num_workers: int) -> None:
    """Write the cache beside its place, then give it its name."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a killed run: nobody else is here
    part.mkdir()
    try:
        content = _written(part, source, num_workers)
        write_json(part / CONTENT, {"format": FORMAT, "key": name.key, **content})
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or it would be used
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _written(part: Path, source: _Blocks, num_workers: int) -> dict[str, Any]:
    """Write frames and indices; returns what `cache.json` says of them."""
    from rich.console import Console  # every worker imports this module, and draws nothing

    from vlakit.progress import progress_bar

    writers: dict[str, _CameraWriter] = {}
    errors: list[tuple[float, int]] = []
    total = source.num_frames * len(source.cameras)
    console = Console(stderr=True)
    bars = progress_bar(console, "frames", only_on_terminal=True, transient=True)
    with bars as progress, ExitStack() as files:
        bar = progress.add_task(f"writing the frame cache ({source.kind})", total=total)
        for block in _encoded_blocks(source, num_workers):
            if block.camera not in writers:
                file = files.enter_context((part / f"{len(writers)}.frames").open("wb"))
                writers[block.camera] = _CameraWriter(file)
            writers[block.camera].write(block)
            errors += block.errors
            progress.advance(bar, len(block.sizes))
    entries = {}
    for number, (camera, writer) in enumerate(writers.items()):
        index = f"{number}.index.npy"
        np.save(part / index, writer.index())
        entries[camera] = {
            "frames": f"{number}.frames",
            "index": index,
            "compressed": source.kind == "jpeg",
            "shape": list(writer.shape),
        }
    content: dict[str, Any] = {"kind": source.kind, "cameras": entries}
    if errors:
        content |= {
            "quality": JPEG_QUALITY,
            "mean_error": sum(mean for mean, _ in errors) / len(errors),
            "largest_error": max(largest for _, largest in errors),
        }
    content["bytes"] = {path.name: path.stat().st_size for path in sorted(part.iterdir())}
    return content


def _encoded_blocks(source: _Blocks, num_workers: int) -> Iterator[_Block]:
    """Yield all blocks in their order.

    Raises:
        DatasetError: as a worker raised it, or a worker was killed.
    """
    loader: Iterable[_Block | DatasetError] = DataLoader(
        SharedReader(source),
        sampler=range(len(source)),
        batch_size=None,
        num_workers=num_workers,
        multiprocessing_context="spawn" if num_workers else None,
        generator=torch.Generator(),  # a run's random numbers do not depend on a cache being there
    )
    try:
        for block in loader:
            if isinstance(block, DatasetError):
                raise block
            yield block
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DatasetError(
            f"a process that builds the frame cache died ({str(error).splitlines()[0]}); as a rule "
            "the memory did not suffice. Lower --num_workers."
        ) from error


class _CameraWriter:
    """Appends the frames of one camera to its file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sizes: list[int] = []
        self._checksums: list[int] = []
        self.shape: tuple[int, ...] = ()

    def write(self, block: _Block) -> None:
        if self.shape not in ((), block.shape):
            raise DatasetError(
                f"{block.camera!r} has frames of {list(self.shape)} and of {list(block.shape)} "
                "(channels, height, width); expected one size. Leave --dataset.frame_cache out."
            )
        self.shape = block.shape
        data = block.frames
        self._file.write(data.numpy().data if isinstance(data, Tensor) else data)
        self._sizes += block.sizes
        self._checksums += block.checksums

    def index(self) -> np.ndarray:
        """Return where each frame begins and its checksum, int64 (frames + 1, 2)."""
        starts = np.concatenate([[0], np.cumsum(self._sizes)])
        return np.stack([starts, [*self._checksums, 0]], axis=1).astype(np.int64)
