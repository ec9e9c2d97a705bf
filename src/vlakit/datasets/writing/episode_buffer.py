# SPDX-License-Identifier: Apache-2.0
"""The frames of the episode being recorded: checked one by one, cameras kept in a scratch file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.datasets.writing.new_dataset import image_size
from vlakit.errors import DatasetError, did_you_mean
from vlakit.features import CAMERA_DTYPES, DEFAULT_FEATURES, TASK


class EpisodeBuffer:
    """The frames of one episode.

    Args:
        features: as from `check_features`.
        scratch_dir: where camera frames wait, in unnamed files: a kill leaves nothing behind.
    """

    def __init__(self, features: Mapping[str, Mapping[str, Any]], scratch_dir: Path) -> None:
        self._features = {n: e for n, e in features.items() if n not in DEFAULT_FEATURES}
        self._scratch_dir = scratch_dir
        self.cameras = {
            name: image_size(entry["shape"])
            for name, entry in self._features.items()
            if entry["dtype"] in CAMERA_DTYPES
        }
        self.values: dict[str, list] = {n: [] for n in self._features if n not in self.cameras}
        self.tasks: list[str] = []
        self._files: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.tasks)

    def add(self, frame: Mapping[str, Any]) -> None:
        """Check one frame and keep it. The caller's dictionary and arrays stay untouched.

        Raises:
            DatasetError: a feature is missing, unknown, misshaped, of another dtype, or not finite.
        """
        self._check_names(frame)
        checked = {
            name: (
                self._image(name, frame[name])
                if name in self.cameras
                else self._value(name, frame[name])
            )
            for name in self._features
        }
        task = frame[TASK]
        if not isinstance(task, str) or not task:
            raise DatasetError(f"a frame's 'task' is {task!r}; expected a non-empty text.")
        for name, value in checked.items():
            if name in self.cameras:
                self._file(name).write(value.tobytes())
            else:
                self.values[name].append(value)
        self.tasks.append(task)

    def _check_names(self, frame: Mapping[str, Any]) -> None:
        if missing := [name for name in (*self._features, TASK) if name not in frame]:
            raise DatasetError(
                f"frame {len(self)} lacks {missing[0]!r}; expected {', '.join(self._features)} and "
                f"{TASK}."
            )
        if extra := [name for name in frame if name not in self._features and name != TASK]:
            raise DatasetError(
                f"frame {len(self)} has {extra[0]!r}, which is no feature of this dataset; "
                "expected "
                f"{', '.join(self._features)} and {TASK}.{did_you_mean(extra[0], self._features)}"
            )

    def _value(self, name: str, value: Any) -> Any:
        entry = self._features[name]
        if entry["dtype"] == "string":
            if isinstance(value, str):
                return value
            raise DatasetError(
                f"frame {len(self)}: {name!r} is {type(value).__name__}, expected a text (string)."
            )
        array = np.asarray(value)
        shape = tuple(entry["shape"])
        if shape == (1,) and array.shape == ():
            array = array.reshape(1).astype(entry["dtype"])
        if array.shape != shape or array.dtype != np.dtype(entry["dtype"]):
            raise DatasetError(
                f"frame {len(self)}: {name!r} is {array.dtype} {list(array.shape)}, expected "
                f"{entry['dtype']} {list(shape)}; convert it before add_frame."
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DatasetError(
                f"frame {len(self)}: {name!r} holds NaN or infinity ({array.ravel()[:8]}); "
                "expected finite numbers. Discard the episode or repair the signal."
            )
        return array.copy()

    def _image(self, name: str, value: Any) -> np.ndarray:
        """Return uint8 (height, width, channels)."""
        array = np.asarray(value)
        height, width, channels = self.cameras[name]
        if array.shape == (channels, height, width):
            array = array.transpose(1, 2, 0)
        elif array.shape != (height, width, channels):
            raise DatasetError(
                f"frame {len(self)}: camera {name!r} has shape {list(array.shape)}, expected "
                f"{[height, width, channels]} or {[channels, height, width]}."
            )
        if array.dtype.kind == "f":
            if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
                raise DatasetError(
                    f"frame {len(self)}: camera {name!r} is {array.dtype} and leaves [0, 1]; give "
                    "uint8, or floats in [0, 1]."
                )
            array = np.round(array * 255).astype(np.uint8)
        if array.dtype != np.uint8:
            raise DatasetError(
                f"frame {len(self)}: camera {name!r} is {array.dtype}; expected uint8 or float in "
                "[0, 1]."
            )
        return np.ascontiguousarray(array)

    def _file(self, name: str) -> Any:
        if name not in self._files:
            # Lives as long as the episode: closed by `close`.
            self._files[name] = tempfile.TemporaryFile(dir=self._scratch_dir)  # noqa: SIM115
        return self._files[name]

    def frames(self, name: str, indices: np.ndarray | None = None) -> Iterator[np.ndarray]:
        """Yield frames of a camera, uint8 (height, width, channels), in the order asked for."""
        shape = self.cameras[name]
        size = int(np.prod(shape))
        file = self._file(name)
        for index in range(len(self)) if indices is None else indices:
            file.seek(int(index) * size)
            yield np.frombuffer(file.read(size), dtype=np.uint8).reshape(shape)

    def close(self) -> None:
        """Drop the scratch files."""
        for file in self._files.values():
            file.close()
        self._files = {}
