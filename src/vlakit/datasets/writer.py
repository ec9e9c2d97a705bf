# SPDX-License-Identifier: Apache-2.0
"""`LeRobotDatasetWriter`: record episodes into a dataset v3.0, laid out as LeRobot 0.6.1 does.

Nothing half written can be taken for a dataset: files carry the suffix `.part` until they are whole,
and `meta/info.json`, without which no reader opens the folder, is written last.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from PIL import Image

from vlakit.datasets import tables
from vlakit.datasets.episode_buffer import EpisodeBuffer, check_features
from vlakit.datasets.location import lerobot_home
from vlakit.datasets.metadata import (
    DATA_PATH,
    EPISODES_PATH,
    INFO_PATH,
    STATS_PATH,
    TASKS_PATH,
    VIDEO_PATH,
    read_table,
)
from vlakit.datasets.stats import (
    PixelHistogram,
    array_stats,
    image_stride,
    sampled_frames,
    save_stats,
)
from vlakit.datasets.video_encoding import ClipJoiner, VideoEncoding, encode_clip
from vlakit.errors import DatasetError

CODEBASE_VERSION = "v3.0"
CHUNKS_SIZE = 1000
EPISODES_PER_ROW_GROUP = 10
_MB = 1024 * 1024


class LeRobotDatasetWriter:
    """Records episodes; make one with `create`.

    As a context manager it finalizes at the end, also after an error: the episodes saved until then are
    whole, the one being recorded is dropped. When no episode was saved the folder is removed.
    """

    def __init__(
        self,
        repo_id: str,
        root: Path,
        info: dict[str, Any],
        encoding: VideoEncoding,
        encoder_threads: int = 0,
    ) -> None:
        self.repo_id = repo_id
        self.root = root
        self.info = info
        self.tasks: list[str] = []
        self.num_episodes = 0
        self.num_frames = 0
        self._encoding = encoding
        self._encoder_threads = encoder_threads
        features = info["features"]
        self._video_keys = [n for n, e in features.items() if e["dtype"] == "video"]
        self._schema = tables.frame_schema(features)
        self._data: tables.ParquetFileWriter | None = None
        self._episodes: tables.ParquetFileWriter | None = None
        self._videos: dict[str, ClipJoiner] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._rows: list[dict[str, Any]] = []
        self._histograms: dict[str, PixelHistogram] = {}
        self._last_stats: dict[str, dict[str, np.ndarray]] = {}
        self._buffer = EpisodeBuffer(features, root)
        self._finalized = False
        self._broken = False

    @classmethod
    def create(
        cls,
        repo_id: str,
        fps: int,
        features: Mapping[str, Mapping[str, Any]],
        root: str | Path | None = None,
        robot_type: str | None = None,
        *,
        use_videos: bool = True,
        vcodec: str = "libsvtav1",
        g: int = 2,
        crf: int = 30,
        preset: str | int | None = None,
        encoder_threads: int = 0,
        data_files_size_in_mb: float = 100,
        video_files_size_in_mb: float = 200,
    ) -> Self:
        """Start a new dataset.

        Args:
            repo_id: name of the dataset.
            fps: frames per second.
            features: per name `dtype` (numpy name, string, image or video), `shape` (cameras as
                (height, width, 3)) and optionally `names`.
            root: folder to make; default `$HF_LEROBOT_HOME/<repo_id>`. It must not exist.
            robot_type: free text.
            use_videos: False stores cameras of dtype video as PNG images.
            vcodec: libsvtav1, h264 or hevc.
            g: every g-th frame stands alone.
            crf: quality, lower is better.
            preset: the encoder's name for its speed.
            encoder_threads: 0 = automatic.
            data_files_size_in_mb: a data file that would grow past this is followed by a new one.
            video_files_size_in_mb: the same for video files.

        Raises:
            DatasetError: the folder exists, or a feature cannot be stored.
        """
        encoding = VideoEncoding(vcodec=vcodec, g=g, crf=crf, preset=preset)
        checked = check_features(features)
        if not isinstance(fps, int) or fps < 1:
            raise DatasetError(f"fps={fps!r}: expected a whole number of frames per second.")
        for name, entry in checked.items():
            if entry["dtype"] == "video" and not use_videos:
                entry["dtype"] = "image"
            if entry["dtype"] == "video":
                height, width = _height_width(entry["shape"])
                _check_even(name, height, width)
                entry["info"] = encoding.info(height, width, fps)
        path = Path(root).expanduser() if root is not None else lerobot_home() / repo_id
        if path.exists():
            raise DatasetError(
                f"{path} exists already; a new dataset needs a folder of its own. Remove it or give "
                "another root."
            )
        path.mkdir(parents=True)
        has_videos = any(entry["dtype"] == "video" for entry in checked.values())
        info = {
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
        return cls(repo_id, path, info, encoding, encoder_threads)

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        return self.info["features"]

    @property
    def fps(self) -> int:
        return self.info["fps"]

    @property
    def episode_length(self) -> int:
        """Frames of the episode being recorded."""
        return len(self._buffer)

    def add_frame(self, frame: Mapping[str, Any]) -> None:
        """Add one frame: every feature given to `create`, and `task`.

        Cameras are uint8 or float in [0, 1], channels first or last. Numbers have exactly the dtype and
        shape of their feature; a feature of shape (1,) also takes a plain number.

        Raises:
            DatasetError: a feature is missing, unknown, misshaped, of another dtype, or not finite.
        """
        self._check_open()
        self._buffer.add(frame)

    def discard_episode(self) -> None:
        """Forget the frames added since the last saved episode."""
        self._buffer.close()
        self._buffer = EpisodeBuffer(self.features, self.root)

    def save_episode(self) -> None:
        """Write the added frames as one episode.

        Raises:
            DatasetError: there are none, or the video encoder fails (the episode is kept then).
        """
        self._check_open()
        length = len(self._buffer)
        if length == 0:
            raise DatasetError("save_episode without frames; call add_frame first.")
        clips = {
            key: encode_clip(
                self._buffer.frames(key), self.fps, self._encoding, self._encoder_threads
            )
            for key in self._video_keys
        }
        tasks = list(dict.fromkeys([*self.tasks, *self._buffer.tasks]))
        columns = self._columns(tasks)
        stats = {name: array_stats(v) for name, v in columns.items() if isinstance(v, np.ndarray)}
        for name in self._buffer.cameras:
            stats[name] = self._camera_stats(name)
        row = {
            "episode_index": self.num_episodes,
            "tasks": list(dict.fromkeys(self._buffer.tasks)),
            "length": length,
            "dataset_from_index": self.num_frames,
            "dataset_to_index": self.num_frames + length,
        }
        self._broken = True  # until every file has taken the episode
        row |= self._write_frames(columns)
        for key, clip in clips.items():
            row |= self._write_clip(key, clip)
        for name in self.features:
            row |= {f"stats/{name}/{key}": v.tolist() for key, v in stats.get(name, {}).items()}
        self._rows.append(row)
        if len(self._rows) >= EPISODES_PER_ROW_GROUP:
            self._flush_rows(stats)
        self._last_stats = stats
        self.tasks = tasks
        self.num_episodes += 1
        self.num_frames += length
        self._broken = False
        self.discard_episode()

    def _columns(self, tasks: list[str]) -> dict[str, np.ndarray | list]:
        """Return the columns that are no cameras, scalars as (frames,), in the order of the features."""
        length = len(self._buffer)
        frame_index = np.arange(length)
        own = {
            "timestamp": (frame_index / self.fps).astype(np.float32),
            "frame_index": frame_index,
            "episode_index": np.full(length, self.num_episodes),
            "index": self.num_frames + frame_index,
            "task_index": np.array([tasks.index(task) for task in self._buffer.tasks]),
        }
        columns: dict[str, np.ndarray | list] = {}
        for name, entry in self.features.items():
            if name in own:
                columns[name] = own[name]
            elif name in self._buffer.values:
                values = self._buffer.values[name]
                is_text = entry["dtype"] == "string"
                columns[name] = values if is_text else _drop_single(np.stack(values))
        return columns

    def _camera_stats(self, name: str) -> dict[str, np.ndarray]:
        height, width, channels = self._buffer.cameras[name]
        stride = image_stride(height, width)
        histogram = PixelHistogram(channels)
        for pixels in self._buffer.frames(name, sampled_frames(len(self._buffer))):
            histogram.add(pixels[None, ::stride, ::stride].transpose(0, 3, 1, 2))
        self._histograms.setdefault(name, PixelHistogram(channels)).merge(histogram)
        return histogram.stats()

    def _write_frames(self, columns: Mapping[str, np.ndarray | list]) -> dict[str, int]:
        """Write one row group and return where it lies."""
        length = len(self._buffer)
        arrays = []
        for field in self._schema:
            values = columns.get(field.name)
            if values is None:
                arrays.append(self._png_column(field.name))
            elif isinstance(values, list):
                arrays.append(pa.array(values, field.type))
            else:
                arrays.append(tables.numeric_column(values, field.type))
        limit = self.info["data_files_size_in_mb"] * _MB
        if self._data is not None:
            per_frame = self._data.size / max(1, self._data.num_rows)
            if self._data.size + per_frame * length >= limit:
                self._data.close()
                self._data = None
        if self._data is None:
            chunk, file = self._next_place("data")
            path = self.root / DATA_PATH.format(chunk_index=chunk, file_index=file)
            self._data = tables.ParquetFileWriter(path, self._schema)
        self._data.write(pa.Table.from_arrays(arrays, schema=self._schema))
        chunk, file = self._places["data"]
        return {"data/chunk_index": chunk, "data/file_index": file}

    def _png_column(self, name: str) -> pa.Array:
        rows = []
        for number, pixels in enumerate(self._buffer.frames(name)):
            buffer = io.BytesIO()
            picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
            picture.save(buffer, format="PNG", compress_level=6)
            rows.append({"bytes": buffer.getvalue(), "path": f"frame-{number:06d}.png"})
        return pa.array(rows, tables.IMAGE_TYPE)

    def _write_clip(self, key: str, clip: bytes) -> dict[str, int | float]:
        """Append one camera's clip and return where it lies."""
        length = len(self._buffer)
        limit = self.info["video_files_size_in_mb"] * _MB
        joiner = self._videos.get(key)
        if joiner is not None and joiner.size + len(clip) >= limit:
            joiner.close()
            joiner = None
        if joiner is None:
            chunk, file = self._next_place(key)
            path = VIDEO_PATH.format(video_key=key, chunk_index=chunk, file_index=file)
            joiner = self._videos[key] = ClipJoiner(self.root / path, self.fps)
        start = joiner.num_frames
        joiner.append(clip, length)
        chunk, file = self._places[key]
        return {
            f"videos/{key}/chunk_index": chunk,
            f"videos/{key}/file_index": file,
            f"videos/{key}/from_timestamp": start / self.fps,
            f"videos/{key}/to_timestamp": (start + length) / self.fps,
        }

    def _next_place(self, kind: str) -> tuple[int, int]:
        """Return chunk and file number of a new file of this kind."""
        chunk, file = self._places.get(kind, (0, -1))
        self._places[kind] = (chunk, file + 1) if file + 1 < CHUNKS_SIZE else (chunk + 1, 0)
        return self._places[kind]

    def _flush_rows(self, stats: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Write the waiting rows of the table of episodes."""
        if not self._rows:
            return
        limit = self.info["data_files_size_in_mb"] * _MB
        ordered = {name: stats[name] for name in self.features if name in stats}
        schema = tables.episode_schema(self._video_keys, ordered)
        if self._episodes is not None and self._episodes.size >= limit:
            self._episodes.close()
            self._episodes = None
        if self._episodes is None:
            chunk, file = self._next_place("meta/episodes")
            path = self.root / EPISODES_PATH.format(chunk_index=chunk, file_index=file)
            self._episodes = tables.ParquetFileWriter(path, schema)
        chunk, file = self._places["meta/episodes"]
        place = {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
        self._episodes.write(
            pa.Table.from_pylist([row | place for row in self._rows], schema=schema)
        )
        self._rows = []

    def finalize(self) -> None:
        """Close all files and write the metadata; the dataset can be read afterwards.

        Frames added since the last saved episode are dropped. A second call does nothing.

        Raises:
            DatasetError: no episode was saved (the folder is removed), or saving one failed before.
        """
        if self._finalized:
            return
        self._buffer.close()
        self._finalized = True
        if self._broken or self.num_episodes == 0:
            self._abort()
            return
        self._flush_rows(self._last_stats)
        for file in (self._data, self._episodes, *self._videos.values()):
            assert file is not None
            file.close()
        tables.write_tasks(self.root / TASKS_PATH, self.tasks)
        save_stats(self._dataset_stats(), self.root / STATS_PATH)
        self.info |= {
            "total_episodes": self.num_episodes,
            "total_frames": self.num_frames,
            "total_tasks": len(self.tasks),
            "splits": {"train": f"0:{self.num_episodes}"},
        }
        temporary = self.root / (INFO_PATH + ".part")
        temporary.write_text(json.dumps(self.info, indent=4, ensure_ascii=False), encoding="utf-8")
        os.replace(temporary, self.root / INFO_PATH)

    def _abort(self) -> None:
        for file in (self._data, self._episodes, *self._videos.values()):
            if file is not None:
                file.abort()
        if self._broken:
            raise DatasetError(
                f"{self.root}: saving an episode failed half way, so the recording cannot be finalized. "
                "Remove the folder and record again."
            )
        shutil.rmtree(self.root)
        raise DatasetError(
            f"no episode was saved, so {self.root} was removed; call save_episode before finalize."
        )

    def _dataset_stats(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the statistics of all frames; numbers are read back from the data files."""
        paths = sorted((self.root / "data").glob("*/*.parquet"))
        stats = {}
        for name, entry in self.features.items():
            if name in self._histograms:
                stats[name] = self._histograms[name].stats()
            elif entry["dtype"] != "string":
                columns = [read_table(path, [name])[name] for path in paths]
                flat = np.concatenate([tables.flat_numbers(column) for column in columns])
                stats[name] = array_stats(flat.reshape(self.num_frames, *entry["shape"]))
        return stats

    def _check_open(self) -> None:
        if self._finalized or self._broken:
            state = "was finalized" if self._finalized else "failed to save an episode"
            raise DatasetError(f"the writer of {self.root} {state}; start a new dataset.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        try:
            self.finalize()
        except DatasetError:
            if kind is None:
                raise


def _drop_single(values: np.ndarray) -> np.ndarray:
    return values[:, 0] if values.shape[1:] == (1,) else values


def _height_width(shape: list[int]) -> tuple[int, int]:
    return (shape[0], shape[1]) if shape[2] in (1, 3) else (shape[1], shape[2])


def _check_even(name: str, height: int, width: int) -> None:
    if height % 2 or width % 2:
        raise DatasetError(
            f"camera {name!r} is {width}x{height}; a yuv420p video needs even sides. Crop or resize it, or "
            "store it with dtype 'image'."
        )
