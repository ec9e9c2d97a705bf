# SPDX-License-Identifier: Apache-2.0
"""`LeRobotDatasetWriter`: record episodes into a dataset v3.0, laid out as LeRobot 0.6.1 does.

Nothing half written can be taken for a dataset: files carry the suffix `.part` until they are
    whole,
and `meta/info.json`, without which no reader opens the folder, is written last.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
import pyarrow as pa
from PIL import Image

from vlakit.datasets import tables
from vlakit.datasets.episode_buffer import EpisodeBuffer, check_features
from vlakit.datasets.episodes import (
    DATA_PATH,
    INFO_PATH,
    STATS_PATH,
    TASKS_PATH,
    VIDEO_PATH,
    read_json,
    read_table,
)
from vlakit.datasets.location import lerobot_home
from vlakit.datasets.metadata import load_metadata
from vlakit.datasets.rolling_files import CHUNKS_SIZE, RollingFiles, last_places
from vlakit.datasets.stats import (
    PixelHistogram,
    array_stats,
    camera_histogram,
    image_stride,
    sampled_frames,
    save_stats,
)
from vlakit.datasets.video_encoding import ENCODERS, VideoEncoding, encode_clip
from vlakit.errors import DatasetError

CODEBASE_VERSION = "v3.0"
EPISODES_PER_ROW_GROUP = 10


class LeRobotDatasetWriter:
    """Records episodes; make one with `create`.

    As a context manager it finalizes at the end, also after an error: the episodes saved until
    then are whole, the one being recorded is dropped. When no episode was saved the folder is
    removed.
    """

    def __init__(
        self,
        repo_id: str,
        root: Path,
        info: dict[str, Any],
        encoding: VideoEncoding,
        encoder_threads: int = 0,
        places: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        self.repo_id = repo_id
        self.root = root
        self.info = info
        self.tasks: list[str] = []
        self.num_episodes = 0
        self.num_frames = 0
        self._first_episode = 0
        self._encoding = encoding
        self._encoder_threads = encoder_threads
        features = info["features"]
        self._video_keys = [n for n, e in features.items() if e["dtype"] == "video"]
        self._files = RollingFiles(root, info, places or {})
        self._rows: list[dict[str, Any]] = []
        self._rows_schema: pa.Schema | None = None
        self._histograms: dict[str, PixelHistogram] = {}
        self._buffer = EpisodeBuffer(features, root)
        self._finalized = False
        self._broken = False

    @classmethod
    def create(  # noqa: PLR0913 - LeRobot's flags, all but four with a default
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
                f"{path} exists already; a new dataset needs a folder of its own. Remove it or "
                "give another root."
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

    @classmethod
    def resume(
        cls,
        repo_id: str,
        root: str | Path | None = None,
        *,
        preset: str | int | None = None,
        encoder_threads: int = 0,
    ) -> Self:
        """Go on with a finalized dataset of version 3.0: new episodes go into new files.

        Until `finalize`, the folder is read as it was before.

        Args:
            repo_id: name of the dataset.
            root: its folder; default `$HF_LEROBOT_HOME/<repo_id>`.
            preset: the encoder's name for its speed; the rest is as in the dataset.
            encoder_threads: 0 = automatic.

        Raises:
            DatasetError: the folder holds no whole dataset of version 3.0.
        """
        from vlakit.datasets.reader import LeRobotDataset

        path = Path(root).expanduser() if root is not None else lerobot_home() / repo_id
        metadata = load_metadata(repo_id, path)
        if not metadata.version.startswith("v3"):
            raise DatasetError(
                f"{path} is of version {metadata.version}; only v3.0 can be recorded on. Convert "
                "it."
            )
        info = read_json(path / INFO_PATH)
        encoding = _encoding_of(info["features"], preset)
        writer = cls(repo_id, path, info, encoding, encoder_threads, last_places(metadata))
        writer.tasks = list(metadata.tasks)
        writer.num_episodes = writer._first_episode = metadata.total_episodes
        writer.num_frames = metadata.total_frames
        if metadata.camera_keys:
            dataset = LeRobotDataset(repo_id, path)
            writer._histograms = {
                name: camera_histogram(dataset, name) for name in metadata.camera_keys
            }
        return writer

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

        Cameras are uint8 or float in [0, 1], channels first or last. Numbers have exactly the
        dtype and shape of their feature; a feature of shape (1,) also takes a plain number.

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
        row |= self._files.write_frames(self._table(columns))
        for key, clip in clips.items():
            row |= self._files.write_clip(key, clip, length)
        for name in self.features:
            row |= {f"stats/{name}/{key}": v.tolist() for key, v in stats.get(name, {}).items()}
        self._rows.append(row)
        if self._rows_schema is None:
            ordered = {name: stats[name] for name in self.features if name in stats}
            self._rows_schema = tables.episode_schema(self._video_keys, ordered)
        if len(self._rows) >= EPISODES_PER_ROW_GROUP:
            self._flush_rows()
        self.tasks = tasks
        self.num_episodes += 1
        self.num_frames += length
        self._broken = False
        self.discard_episode()

    def _columns(self, tasks: list[str]) -> dict[str, np.ndarray | list]:
        """Return all columns but cameras, scalars as (frames,), in the order of the features."""
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

    def _table(self, columns: Mapping[str, np.ndarray | list]) -> pa.Table:
        """Return the episode as rows of a data file."""
        schema = self._files.frame_schema
        arrays = []
        for field in schema:
            values = columns.get(field.name)
            if values is None:
                arrays.append(self._png_column(field.name))
            elif isinstance(values, list):
                arrays.append(pa.array(values, field.type))
            else:
                arrays.append(tables.numeric_column(values, field.type))
        return pa.Table.from_arrays(arrays, schema=schema)

    def _png_column(self, name: str) -> pa.Array:
        rows = []
        for number, pixels in enumerate(self._buffer.frames(name)):
            buffer = io.BytesIO()
            picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
            picture.save(buffer, format="PNG", compress_level=6)
            rows.append({"bytes": buffer.getvalue(), "path": f"frame-{number:06d}.png"})
        return pa.array(rows, tables.IMAGE_TYPE)

    def _flush_rows(self) -> None:
        """Write the waiting rows of the table of episodes."""
        if self._rows and self._rows_schema is not None:
            self._files.write_episodes(self._rows, self._rows_schema)
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
        if self.num_episodes == self._first_episode:
            return  # nothing was added to the dataset that `resume` opened
        self._flush_rows()
        self._files.close()
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

    def _abort(self) -> NoReturn:
        self._files.abort()
        if self._broken:
            raise DatasetError(
                f"{self.root}: saving an episode failed half way, so the recording cannot be "
                "finalized. Remove the folder and record again."
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


def _encoding_of(
    features: Mapping[str, Mapping[str, Any]], preset: str | int | None
) -> VideoEncoding:
    """Return how the cameras of an existing dataset were encoded."""
    blocks = [entry.get("info") or {} for entry in features.values() if entry["dtype"] == "video"]
    block = blocks[0] if blocks else {}
    names = {codec: name for name, codec in ENCODERS.items()}
    codec = block.get("video.codec", "av1")
    return VideoEncoding(
        vcodec=names.get(codec, codec),
        g=block.get("video.g") or 2,
        crf=block.get("video.crf") or 30,
        preset=preset if preset is not None else block.get("video.preset"),
    )


def _check_even(name: str, height: int, width: int) -> None:
    if height % 2 or width % 2:
        raise DatasetError(
            f"camera {name!r} is {width}x{height}; a yuv420p video needs even sides. Crop or "
            "resize it, or store it with dtype 'image'."
        )
