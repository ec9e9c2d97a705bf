# SPDX-License-Identifier: Apache-2.0
"""`LeRobotDataset`: random access to frames, with LeRobot's items.

Batches are the unit of work: rows are looked up for a whole batch at once, and video frames are
decoded file by file in the order of their times.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlakit.datasets.action_window import frame_offsets, window_rows
from vlakit.datasets.config import VIDEO_BACKENDS, FrameCacheKind
from vlakit.datasets.feature_stats import QUANTILES, Stats, array_stats, camera_histogram
from vlakit.datasets.image_transforms import ImageTransforms
from vlakit.datasets.location import default_cache_dir, locate
from vlakit.datasets.metadata import DatasetMetadata
from vlakit.datasets.reading.disk_cache import DiskCache, cache_name
from vlakit.datasets.reading.disk_cache_building import open_or_build
from vlakit.datasets.reading.frame_cache import decode_all
from vlakit.datasets.reading.frames import FrameTable, load_frames
from vlakit.datasets.reading.image_column import IMAGE_BUDGET
from vlakit.datasets.reading.versions import load_metadata
from vlakit.datasets.reading.video import DecoderCache
from vlakit.errors import ConfigError, DatasetError
from vlakit.features import TASK

logger = logging.getLogger(__name__)

OPEN_VIDEOS = 64
"""Video files that all processes that read keep open, each with a decoder and its frames."""
ImageChange = ImageTransforms | Callable[[Tensor], Tensor]


class LeRobotDataset(torch.utils.data.Dataset):
    """A LeRobot dataset of version 3.0 or 2.1, local or from the hub.

    An item is LeRobot's: one tensor per feature (numbers as float32, int64 or bool; scalars 0-d),
    cameras (3, height, width) float32 in [0, 1], `task` as a string. A feature with
    `delta_timestamps` gains a leading time axis and a mask `<name>_is_pad`, True where the window
    leaves the episode and repeats its first or last frame.

    Args:
        repo_id: hub id; a label when `root` is given.
        root: dataset folder; default `$HF_LEROBOT_HOME/<repo_id>`, then the hub.
        episodes: read (and download) only these; rows keep the order of the files.
        delta_timestamps: per feature the times (s) relative to the current frame.
        revision: hub branch, tag or commit; default tag v3.0, else main with a warning.
        token: hub token, for private datasets.
        tolerance_s: largest distance between the time asked for and a video frame's.
        image_transforms: changes the cameras of every item.
        return_uint8: cameras as uint8 instead of float32.
        cache_frames: decode every camera once now and keep uint8 frames in memory.
        frame_cache: read cameras from a cache on disk, built now where there is none: 'raw' frames
            are equal to decoded ones, 'jpeg' ones nearly so; 'none' decodes.
        frame_cache_dir: folder of the caches; default `$HF_LEROBOT_HOME/frame_cache`.
        frame_cache_workers: processes that build it.
        video_backend: 'pyav' (default) or 'torchcodec'.
        decoder_cache_size: video files kept open per process.

    Raises:
        DatasetError: files are missing, damaged or disagree; see the message.
        ConfigError: `video_backend` is unknown.
    """

    def __init__(  # noqa: PLR0913 - LeRobot's arguments, all but one with a default
        self,
        repo_id: str,
        root: str | Path | None = None,
        episodes: Sequence[int] | None = None,
        delta_timestamps: Mapping[str, Sequence[float]] | None = None,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        tolerance_s: float = 1e-4,
        image_transforms: ImageChange | None = None,
        return_uint8: bool = False,
        cache_frames: bool = False,
        frame_cache: FrameCacheKind = "none",
        frame_cache_dir: str | Path | None = None,
        frame_cache_workers: int = 0,
        video_backend: str | None = None,
        decoder_cache_size: int = 16,
    ) -> None:
        if video_backend not in (None, *VIDEO_BACKENDS):
            raise ConfigError(
                f"video_backend={video_backend!r} is unknown; use {' or '.join(VIDEO_BACKENDS)}."
            )
        location = locate(repo_id, root, revision, token)
        self.repo_id = repo_id
        self.root = location.root
        self.meta: DatasetMetadata = load_metadata(repo_id, location.root)
        self.episodes = _chosen_episodes(self.meta, episodes)
        location.fetch(self.meta.files_of(self.episodes))
        self.frames: FrameTable = load_frames(self.meta, self.episodes)
        self.tolerance_s = tolerance_s
        self.image_transforms = image_transforms
        self.return_uint8 = return_uint8
        self._offsets = frame_offsets(
            delta_timestamps or {}, self.meta.features, self.meta.fps, tolerance_s
        )
        self._columns = _as_tensors(self.frames.numeric)
        self._decoders = DecoderCache(video_backend, decoder_cache_size)
        self.limit_caches(1)
        self._cached: dict[str, Tensor] = {}
        self._disk_cache: DiskCache | None = None
        self._check_tasks()
        self.meta.load_stats = partial(self._completed, self.meta.load_stats)
        if cache_frames:
            self._cached = decode_all(self.read_images, self.meta.camera_keys, self.num_frames)
        elif frame_cache != "none" and self.meta.camera_keys:
            self._disk_cache = open_or_build(
                Path(frame_cache_dir or default_cache_dir()).expanduser(),
                cache_name(self.meta, self.episodes, frame_cache, video_backend),
                self.read_images,
                cameras=self.meta.camera_keys,
                num_frames=self.num_frames,
                num_workers=frame_cache_workers,
            )

    def limit_caches(self, num_processes: int) -> None:
        """Bound what this process keeps, so that all that read this dataset stay within a sum.

        Together they keep at most `IMAGE_BUDGET` bytes of compressed pictures and
        `OPEN_VIDEOS` open videos (but two each at least).
        """
        columns = self.frames.images.values()
        for column in columns:
            column.budget = IMAGE_BUDGET // (num_processes * len(columns))
        self._decoders.limit(max(2, OPEN_VIDEOS // num_processes))

    def _check_tasks(self) -> None:
        highest = int(self.frames.numeric["task_index"].max(initial=-1))
        if highest >= len(self.meta.tasks):
            raise DatasetError(
                f"{self.root / 'data'}: a frame has task_index {highest}, but the metadata know "
                f"only {len(self.meta.tasks)} tasks. Fetch the dataset again."
            )

    def _completed(self, load_stats: Callable[[], Stats]) -> Stats:
        """Return the stored statistics, with quantiles from the data where they have none."""
        stats = load_stats()
        for name, entry in stats.items():
            if QUANTILES.keys() <= entry.keys():
                continue
            if name in self.meta.camera_keys:
                read, bounds = partial(self.read_images, name), self.frames.episode_bounds
                fresh = camera_histogram(read, bounds, max_frames=200).stats()
            elif name in self.frames.numeric:
                per_element = entry["mean"].ndim > 1
                fresh = array_stats(self.frames.numeric[name], per_element=per_element)
            else:
                continue
            logger.info("%s: quantiles of %s are computed from the data", self.root, name)
            stats[name] = entry | {key: fresh[key] for key in QUANTILES}
        return stats

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_columns"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._columns = _as_tensors(self.frames.numeric)  # of the same memory

    @property
    def frame_cache(self) -> dict[str, Any] | None:
        """What `cache.json` says of the frames on disk and where they are; None without a cache."""
        if self._disk_cache is None:
            return None
        return self._disk_cache.content | {"folder": self._disk_cache.folder}

    @property
    def fps(self) -> int | float:
        return self.meta.fps

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        return self.meta.features

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    @property
    def num_episodes(self) -> int:
        return len(self.episodes)

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        return (
            f"LeRobotDataset({self.repo_id!r}, root='{self.root}', {self.num_episodes} episodes, "
            f"{self.num_frames} frames, features: {', '.join(self.features)})"
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return one item per index; torch's DataLoader calls this for a whole batch."""
        batch = self.get_batch(indices)
        return [
            {name: values[row] for name, values in batch.items()} for row in range(len(indices))
        ]

    def get_batch(self, indices: Sequence[int]) -> dict[str, Any]:
        """Return the items of `indices` stacked: tensors (batch, ...), text as lists.

        Raises:
            IndexError: an index is outside the dataset.
            DatasetError: a camera's file is damaged.
        """
        rows = self._rows(indices)
        starts, ends = (bounds[self.frames.position[rows]] for bounds in self.frames.episode_bounds)
        windows = {
            name: window_rows(rows, starts, ends, offsets)
            for name, offsets in self._offsets.items()
        }
        batch: dict[str, Any] = {}
        for name in self.meta.features:
            wanted = windows[name][0] if name in windows else rows
            if name in self._columns:
                batch[name] = self._columns[name][torch.from_numpy(wanted)]
            elif name in self.frames.text:
                batch[name] = _pick(self.frames.text[name], wanted)
            else:
                batch[name] = self._images(name, wanted)
        for name, (_, is_pad) in windows.items():
            batch[f"{name}_is_pad"] = torch.from_numpy(is_pad)
        tasks = self.frames.numeric["task_index"][rows]
        batch[TASK] = [self.meta.tasks[task] for task in tasks]
        return batch

    def _rows(self, indices: Sequence[int]) -> np.ndarray:
        rows = np.asarray(indices, dtype=np.int64)
        outside = (rows < -len(self)) | (rows >= len(self))
        if outside.any():
            raise IndexError(f"index {rows[outside][0]} of a dataset of {len(self)} frames")
        return np.where(rows < 0, rows + len(self), rows)

    def _images(self, name: str, rows: np.ndarray) -> Tensor:
        """Return (batch, [window,] channels, height, width), changed and scaled as asked for."""
        if name in self._cached:
            images = self._cached[name][torch.from_numpy(rows)]
        elif self._disk_cache is not None:
            images = self._disk_cache.read(name, rows)
        else:
            images = self._read_each_once(name, rows)
        # Parity: LeRobot drops the time axis of a video (not of an image) with a window of 1.
        if rows.ndim == 2 and rows.shape[1] == 1 and name in self.meta.video_keys:
            images = images[:, 0]
        if isinstance(self.image_transforms, ImageTransforms):
            images = self.image_transforms(images)
        if not self.return_uint8 and images.dtype == torch.uint8:
            images = images.to(torch.float32).div_(255)
        if self.image_transforms is not None and not isinstance(
            self.image_transforms, ImageTransforms
        ):
            images = torch.stack([self.image_transforms(image) for image in images])
        return images

    def _read_each_once(self, name: str, rows: np.ndarray) -> Tensor:
        """Return the frames of rows (batch, [window]), those that stand there twice read once."""
        unique, inverse = np.unique(rows, return_inverse=True)
        if len(unique) == rows.size:
            return self.read_images(name, rows.ravel()).unflatten(0, rows.shape)
        return self.read_images(name, unique)[torch.from_numpy(inverse.reshape(rows.shape))]

    def read_images(self, name: str, rows: np.ndarray) -> Tensor:
        """Decode the frames of one camera.

        Args:
            name: camera feature.
            rows: (n,) rows of this dataset, in any order.

        Returns:
            uint8 (n, channels, height, width), as stored, without transforms.
        """
        images: np.ndarray | None = None
        for place, pixels in self._decoded(name, rows):  # straight to where each belongs
            if images is None:
                height, width, channels = pixels.shape
                images = np.empty((len(rows), channels, height, width), np.uint8)
            images[place] = pixels.transpose(2, 0, 1)
        assert images is not None
        return torch.from_numpy(images)

    def _decoded(self, name: str, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield places in `rows` and their pixels (height, width, channels), in reading order."""
        if name in self.frames.images:
            for place in np.argsort(rows, kind="stable"):
                yield int(place), self.frames.images[name].read(int(rows[place]))
            return
        for path, places, times in self._group_by_file(name, rows):
            frames = self._decoders.get(path).frames_at(times, self.tolerance_s)
            yield from zip(places, frames, strict=True)

    def _group_by_file(
        self, name: str, rows: np.ndarray
    ) -> list[tuple[Path, np.ndarray, list[float]]]:
        """Return per video file the places in `rows` it serves and their times in it, ascending."""
        spans = self.meta.episodes.videos[name]
        episodes = self.frames.numeric["episode_index"][rows]
        times = spans.from_timestamps[episodes] + self.frames.numeric["timestamp"][rows]
        by_path: dict[str, list[int]] = {}
        for place, episode in enumerate(episodes):
            by_path.setdefault(spans.paths[episode], []).append(place)
        groups = []
        for path, members in by_path.items():
            places = np.asarray(members)[np.argsort(times[members], kind="stable")]
            groups.append((self.root / path, places, times[places].tolist()))
        return groups


def _as_tensors(columns: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values) for name, values in columns.items()}


def _pick(values: list, rows: np.ndarray) -> list:
    if rows.ndim == 1:
        return [values[row] for row in rows]
    return [[values[row] for row in window] for window in rows]


def _chosen_episodes(meta: DatasetMetadata, episodes: Sequence[int] | None) -> list[int]:
    if meta.total_episodes == 0:
        raise DatasetError(
            f"{meta.root} holds no episodes; expected at least one. Record some, or check "
            "--dataset.root."
        )
    if episodes is None:
        return list(range(meta.total_episodes))
    unknown = [episode for episode in episodes if not 0 <= episode < meta.total_episodes]
    if unknown or not len(episodes):
        raise DatasetError(
            f"episodes={list(episodes)} asks for {unknown or 'nothing'}; {meta.root} has episodes "
            f"0 to {meta.total_episodes - 1}. Correct --dataset.episodes."
        )
    return [int(episode) for episode in episodes]
