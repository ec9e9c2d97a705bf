# SPDX-License-Identifier: Apache-2.0
"""Pictures stored in parquet files: left compressed until one is asked for."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from vlakit.datasets.reading.parquet import unreadable
from vlakit.errors import DatasetError

IMAGE_BUDGET = 2 * 1024**3
"""Bytes of compressed pictures that all image features keep, in all processes that read."""


class ImageColumn:
    """The compressed pictures of one image feature, read by row group when needed.

    Row groups (one episode each, as LeRobot writes them) stay in memory up to `budget` bytes (the
    one in use whatever its size); the least recently used one goes first. Copies sent to worker
    processes start empty.
    """

    def __init__(
        self, name: str, paths: Sequence[Path], file_ids: np.ndarray, file_rows: np.ndarray
    ) -> None:
        self.name = name
        self.budget = IMAGE_BUDGET
        self._paths = list(paths)
        self._file_ids = file_ids
        self._file_rows = file_rows
        self._reset()

    def _reset(self) -> None:
        self._files: dict[int, tuple[pq.ParquetFile, np.ndarray]] = {}
        self._groups: OrderedDict[tuple[int, int], tuple[pa.Array, int]] = OrderedDict()
        self._held = 0
        self._pid = os.getpid()

    def __getstate__(self) -> dict:
        state = self.__dict__.copy()
        for key in ("_files", "_groups", "_held", "_pid"):
            del state[key]
        return state

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._reset()

    def read(self, row: int) -> np.ndarray:
        """Return one picture, uint8 (height, width, channels)."""
        file_id, file_row = int(self._file_ids[row]), int(self._file_rows[row])
        if self._pid != os.getpid():  # a forked worker shares the parent's file position
            self._files, self._pid = {}, os.getpid()
        starts = self._open(file_id)[1]
        group = int(np.searchsorted(starts, file_row, side="right")) - 1
        cell = self._group(file_id, group)[file_row - int(starts[group])]
        data = cell["bytes"].as_py()
        try:
            with Image.open(io.BytesIO(data or b"")) as picture:
                keep = picture.mode in ("RGB", "L")
                pixels = np.asarray(picture if keep else picture.convert("RGB"))
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise DatasetError(
                f"{self._paths[file_id]}: picture {self.name!r} in row {file_row} cannot be "
                f"decoded ({error}); expected a PNG. Fetch the dataset again."
            ) from error
        return pixels if pixels.ndim == 3 else pixels[..., None]

    def _open(self, file_id: int) -> tuple[pq.ParquetFile, np.ndarray]:
        if file_id not in self._files:
            path = self._paths[file_id]
            try:
                file = pq.ParquetFile(path, memory_map=True)
            except (OSError, pa.ArrowException) as error:
                raise unreadable(path, error) from error
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            self._files[file_id] = (file, np.concatenate([[0], np.cumsum(sizes)[:-1]]))
        return self._files[file_id]

    def _group(self, file_id: int, group: int) -> pa.Array:
        key = (file_id, group)
        if key in self._groups:
            self._groups.move_to_end(key)
            return self._groups[key][0]
        try:
            table = self._open(file_id)[0].read_row_group(group, columns=[self.name])
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self._paths[file_id], error) from error
        array = table[self.name].combine_chunks()
        self._groups[key] = (array, array.nbytes)
        self._held += array.nbytes
        while self._held > self.budget and len(self._groups) > 1:
            _, (_, size) = self._groups.popitem(last=False)
            self._held -= size
        return array
