# SPDX-License-Identifier: Apache-2.0
"""`LeRobotDatasetWriter`: record episodes into a dataset v3.0, laid out as LeRobot 0.6.1 does.

Nothing half written can be taken for a dataset: files carry the suffix `.part` until they are
whole, and `meta/info.json`, without which no reader opens the folder, is written last.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Self

from vlakit.datasets.feature_stats import save_stats
from vlakit.datasets.layout import INFO_PATH, STATS_PATH, TASKS_PATH
from vlakit.datasets.location import lerobot_home
from vlakit.datasets.reading.versions import load_metadata
from vlakit.datasets.writing.episode_buffer import EpisodeBuffer
from vlakit.datasets.writing.episode_data import episode_columns, episode_table
from vlakit.datasets.writing.episode_rows import EpisodeRows
from vlakit.datasets.writing.new_dataset import new_info
from vlakit.datasets.writing.rolling_files import RollingFiles, last_places
from vlakit.datasets.writing.running_stats import RunningStats
from vlakit.datasets.writing.tables import write_tasks
from vlakit.datasets.writing.video_encoding import VideoEncoding, encode_clip
from vlakit.errors import DatasetError
from vlakit.files import write_json


class LeRobotDatasetWriter:
    """Records episodes; make one with `create`.

    As a context manager it finalizes at the end, also after an error: the episodes saved until then
    are whole, the one being recorded is dropped. Without a saved episode the folder is removed.
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
        self._rows = EpisodeRows(self._files, self._video_keys)
        self._stats = RunningStats(features)
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
        info = new_info(
            features,
            fps=fps,
            robot_type=robot_type,
            use_videos=use_videos,
            encoding=encoding,
            data_files_size_in_mb=data_files_size_in_mb,
            video_files_size_in_mb=video_files_size_in_mb,
        )
        path = _folder(repo_id, root)
        if path.exists():
            raise DatasetError(
                f"{path} exists already; a new dataset needs a folder of its own. Remove it or "
                "give another root."
            )
        path.mkdir(parents=True)
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
        from vlakit.datasets.reader import LeRobotDataset  # recording anew needs no torch

        path = _folder(repo_id, root)
        metadata = load_metadata(repo_id, path)
        if not metadata.version.startswith("v3"):
            raise DatasetError(
                f"{path} is of version {metadata.version}; only v3.0 can be recorded on. Convert "
                "it."
            )
        encoding = VideoEncoding.from_features(metadata.features, preset)
        places = last_places(metadata)
        writer = cls(repo_id, path, metadata.info, encoding, encoder_threads, places)
        writer.tasks = list(metadata.tasks)
        writer.num_episodes = writer._first_episode = metadata.total_episodes
        writer.num_frames = metadata.total_frames
        if metadata.camera_keys:
            dataset = LeRobotDataset(repo_id, path)
            for name in metadata.camera_keys:
                read = partial(dataset.read_images, name)
                writer._stats.count_existing(name, read, dataset.frames.episode_bounds)
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
                partial(self._buffer.frames, key), self.fps, self._encoding, self._encoder_threads
            )
            for key in self._video_keys
        }
        tasks = list(dict.fromkeys([*self.tasks, *self._buffer.tasks]))
        columns = episode_columns(
            self._buffer,
            self.features,
            fps=self.fps,
            episode_index=self.num_episodes,
            first_index=self.num_frames,
            tasks=tasks,
        )
        stats = self._stats.add_episode(self._buffer, columns)
        row = {
            "episode_index": self.num_episodes,
            "tasks": list(dict.fromkeys(self._buffer.tasks)),
            "length": length,
            "dataset_from_index": self.num_frames,
            "dataset_to_index": self.num_frames + length,
        }
        self._broken = True  # until every file has taken the episode
        row |= self._files.write_frames(
            episode_table(self._buffer, columns, self._files.frame_schema)
        )
        for key, clip in clips.items():
            row |= self._files.write_clip(key, clip, length)
        self._rows.add(row, stats)
        self.tasks = tasks
        self.num_episodes += 1
        self.num_frames += length
        self._broken = False
        self.discard_episode()

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
        self._rows.flush()
        self._files.close()
        write_tasks(self.root / TASKS_PATH, self.tasks)
        data_files = sorted((self.root / "data").glob("*/*.parquet"))
        stats = self._stats.of_all_frames(data_files, self.num_frames)
        save_stats(stats, self.root / STATS_PATH)
        self.info |= {
            "total_episodes": self.num_episodes,
            "total_frames": self.num_frames,
            "total_tasks": len(self.tasks),
            "splits": {"train": f"0:{self.num_episodes}"},
        }
        write_json(self.root / INFO_PATH, self.info)

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


def _folder(repo_id: str, root: str | Path | None) -> Path:
    return Path(root).expanduser() if root is not None else lerobot_home() / repo_id
