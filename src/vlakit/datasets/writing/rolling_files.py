# SPDX-License-Identifier: Apache-2.0
"""The files of a dataset being written: each kind rolls over to a new file when one is full."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from vlakit.datasets.layout import CHUNKS_SIZE, DATA_PATH, EPISODES_PATH, VIDEO_PATH
from vlakit.datasets.metadata import DatasetMetadata
from vlakit.datasets.writing import tables
from vlakit.datasets.writing.video_encoding import ClipJoiner

_DATA, _EPISODES = "data", "meta/episodes"
_MB = 1024 * 1024


class RollingFiles:
    """Open data, video and episode files of one dataset.

    Args:
        root: dataset folder.
        info: `info.json`: fps, features and the size limits.
        places: chunk and file number of the last existing file per kind ('data', 'meta/episodes'
            or a video key), for a recording that goes on; new files follow them.
    """

    def __init__(
        self, root: Path, info: Mapping[str, Any], places: Mapping[str, tuple[int, int]]
    ) -> None:
        self.frame_schema = tables.frame_schema(info["features"])
        self._root = root
        self._fps = info["fps"]
        self._data_limit = info["data_files_size_in_mb"] * _MB
        self._video_limit = info["video_files_size_in_mb"] * _MB
        self._places = dict(places)
        self._data: tables.ParquetFileWriter | None = None
        self._episodes: tables.ParquetFileWriter | None = None
        self._videos: dict[str, ClipJoiner] = {}

    def write_frames(self, table: pa.Table) -> dict[str, int]:
        """Write one episode's frames as a row group; return the columns that say where it lies."""
        if self._data is not None:
            per_frame = self._data.size / max(1, self._data.num_rows)
            if self._data.size + per_frame * table.num_rows >= self._data_limit:
                self._data.close()
                self._data = None
        if self._data is None:
            path = self._next_path(_DATA, DATA_PATH)
            self._data = tables.ParquetFileWriter(path, self.frame_schema)
        self._data.write(table)
        return self._place(_DATA, _DATA)

    def write_clip(self, key: str, clip: bytes, num_frames: int) -> dict[str, int | float]:
        """Append one episode's clip of a camera; return the columns that say where it lies."""
        joiner = self._videos.get(key)
        if joiner is not None and joiner.size + len(clip) >= self._video_limit:
            joiner.close()
            joiner = None
        if joiner is None:
            joiner = ClipJoiner(self._next_path(key, VIDEO_PATH), self._fps)
            self._videos[key] = joiner
        start = joiner.num_frames
        joiner.append(clip, num_frames)
        # Counted in frames: the reference adds up container durations, whose rounding grows.
        return {
            **self._place(key, f"videos/{key}"),
            f"videos/{key}/from_timestamp": start / self._fps,
            f"videos/{key}/to_timestamp": (start + num_frames) / self._fps,
        }

    def write_episodes(self, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> None:
        """Write rows of the table of episodes as one row group."""
        if self._episodes is not None and self._episodes.size >= self._data_limit:
            self._episodes.close()
            self._episodes = None
        if self._episodes is None:
            path = self._next_path(_EPISODES, EPISODES_PATH)
            self._episodes = tables.ParquetFileWriter(path, schema)
        place = self._place(_EPISODES, _EPISODES)
        self._episodes.write(pa.Table.from_pylist([{**row, **place} for row in rows], schema))

    def _next_path(self, kind: str, template: str) -> Path:
        chunk, file = self._places.get(kind, (0, -1))
        chunk, file = (chunk, file + 1) if file + 1 < CHUNKS_SIZE else (chunk + 1, 0)
        self._places[kind] = (chunk, file)
        return self._root / template.format(video_key=kind, chunk_index=chunk, file_index=file)

    def _place(self, kind: str, prefix: str) -> dict[str, int]:
        chunk, file = self._places[kind]
        return {f"{prefix}/chunk_index": chunk, f"{prefix}/file_index": file}

    def _open_files(self) -> list[tables.ParquetFileWriter | ClipJoiner]:
        files = [self._data, self._episodes, *self._videos.values()]
        return [file for file in files if file is not None]

    def close(self) -> None:
        """Finish every open file and give it its name."""
        for file in self._open_files():
            file.close()

    def abort(self) -> None:
        """Throw away every open file."""
        for file in self._open_files():
            file.abort()


def last_places(metadata: DatasetMetadata) -> dict[str, tuple[int, int]]:
    """Return chunk and file number of the last file of each kind in an existing dataset."""
    paths = {_DATA: metadata.episodes.data_paths}
    paths |= {key: spans.paths for key, spans in metadata.episodes.videos.items()}
    folder = metadata.root / "meta" / "episodes"
    paths[_EPISODES] = [str(path) for path in folder.glob("*/*.parquet")]
    return {kind: max(map(_numbers, members)) for kind, members in paths.items()}


def _numbers(path: str) -> tuple[int, int]:
    chunk, file = Path(path).parts[-2:]
    return int(chunk.rpartition("-")[2]), int(Path(file).stem.rpartition("-")[2])
