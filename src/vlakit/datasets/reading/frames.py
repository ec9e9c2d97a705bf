# SPDX-License-Identifier: Apache-2.0
"""The table of frames: numeric columns as numpy arrays, images left compressed until asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from vlakit.datasets.metadata import DatasetMetadata
from vlakit.datasets.reading.image_column import ImageColumn
from vlakit.datasets.reading.parquet import column_names, flat_values, read_table
from vlakit.errors import DatasetError
from vlakit.features import CAMERA_DTYPES


@dataclass
class FrameTable:
    """Frames of the chosen episodes, in file order.

    Attributes:
        numeric: per feature (frames,) or (frames, *shape); float32, int64 or bool.
        text: per feature one object (a string as a rule) per frame.
        images: per image feature the compressed pictures.
        episode_bounds: first row and row after the last of each episode, int64 (episodes,) each.
        position: (frames,) which entry of `episode_bounds` a frame belongs to.
    """

    numeric: dict[str, np.ndarray]
    text: dict[str, list]
    images: dict[str, ImageColumn]
    episode_bounds: tuple[np.ndarray, np.ndarray]
    position: np.ndarray

    def __len__(self) -> int:
        return len(self.position)


def load_frames(
    metadata: DatasetMetadata, episodes: Sequence[int], columns: Sequence[str] | None = None
) -> FrameTable:
    """Read the frames of these episodes; each file is read once.

    Args:
        metadata: of the dataset.
        episodes: which ones.
        columns: features to read besides the episode and frame numbers; all when None.

    Raises:
        DatasetError: a file is missing or damaged, a column is missing or misshaped, or an
            episode's frames are not those that the metadata promise.
    """
    stored = {n: e for n, e in metadata.features.items() if e["dtype"] not in CAMERA_DTYPES}
    if columns is not None:
        wanted_names = {*columns, "episode_index", "frame_index"}
        stored = {name: entry for name, entry in stored.items() if name in wanted_names}
    wanted = np.zeros(metadata.total_episodes, dtype=bool)
    wanted[list(episodes)] = True
    relative_paths = sorted({metadata.episodes.data_paths[episode] for episode in episodes})
    paths = [metadata.root / path for path in relative_paths]
    tables, kept_rows = [], []
    for path in paths:
        table = read_table(path, _present(path, [*stored, *metadata.image_keys], list(stored)))
        kept = _rows_of(path, table, wanted)
        tables.append(table if len(kept) == len(table) else table.take(kept))
        kept_rows.append(kept)
    numeric, text = {}, {}
    for name, entry in stored.items():
        parts = [
            _to_numpy(path, name, entry["shape"], table[name])
            for path, table in zip(paths, tables, strict=True)
        ]
        if isinstance(parts[0], np.ndarray):
            numeric[name] = np.concatenate(parts)
        elif not _is_number(entry["dtype"]):
            text[name] = [value for part in parts for value in part]
        else:
            raise DatasetError(
                f"{paths[0]}: column {name!r} holds no numbers, but info.json gives it the dtype "
                f"{entry['dtype']!r}. Fetch the dataset again or correct its features."
            )
    file_ids = np.repeat(np.arange(len(paths)), [len(rows) for rows in kept_rows])
    images = {
        name: ImageColumn(name, paths, file_ids, np.concatenate(kept_rows))
        for name in metadata.image_keys
    }
    bounds, position = _check_episodes(metadata, episodes, numeric)
    return FrameTable(numeric, text, images, bounds, position)


def _is_number(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "biuf"
    except TypeError:  # string, language and what later versions may add
        return False


def _present(path: Path, required: Sequence[str], columns: list[str]) -> list[str]:
    """Return `columns` after checking that the file has all of `required`."""
    names = column_names(path)
    missing = [name for name in required if name not in names]
    if missing:
        raise DatasetError(
            f"{path} lacks the column {missing[0]!r}, which info.json lists as a feature; it has "
            f"{', '.join(names)}. Fetch the dataset again or correct its features."
        )
    return columns


def _rows_of(path: Path, table: pa.Table, wanted: np.ndarray) -> np.ndarray:
    episode_index = table["episode_index"].to_numpy()
    if len(episode_index) and not 0 <= episode_index.min() <= episode_index.max() < len(wanted):
        raise DatasetError(
            f"{path} holds episode {episode_index.max()}, but the metadata know only "
            f"{len(wanted)} episodes. Fetch the dataset again."
        )
    return np.flatnonzero(wanted[episode_index])


def _to_numpy(
    path: Path, name: str, shape: tuple[int, ...], column: pa.ChunkedArray
) -> np.ndarray | list:
    flat = flat_values(column)
    is_boolean = pa.types.is_boolean(flat.type)
    if not (is_boolean or pa.types.is_integer(flat.type) or pa.types.is_floating(flat.type)):
        return column.to_pylist()
    if flat.null_count:
        raise DatasetError(
            f"{path}: column {name!r} has {flat.null_count} empty values; refill it."
        )
    values = flat.to_numpy(zero_copy_only=False)
    shape = () if shape in ((1,), ()) else shape
    if values.size != len(column) * int(np.prod(shape, dtype=np.int64)):
        raise DatasetError(
            f"{path}: column {name!r} holds {values.size} numbers for {len(column)} frames, but "
            f"info.json gives it the shape {list(shape)}. Correct the shape or fetch it again."
        )
    # Parity: LeRobot's items go through Python numbers, so they are float32, int64 or bool only.
    target = values.dtype if is_boolean else np.float32 if values.dtype.kind == "f" else np.int64
    return values.reshape(len(column), *shape).astype(target)


def _check_episodes(
    metadata: DatasetMetadata, episodes: Sequence[int], numeric: dict[str, np.ndarray]
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Return episode bounds and each row's position, after comparing them with the metadata."""
    index = numeric["episode_index"]
    order = np.unique(np.asarray(episodes, dtype=np.int64))
    counts = np.bincount(index, minlength=metadata.total_episodes)[order]
    promised = metadata.episodes.lengths[order]
    if (wrong := np.flatnonzero(counts != promised)).size:
        episode = int(order[wrong[0]])
        raise DatasetError(
            f"{metadata.root / metadata.episodes.data_paths[episode]}: episode {episode} has "
            f"{counts[wrong[0]]} frames, but the metadata promise {promised[wrong[0]]}. The copy "
            "or the recording is incomplete: fetch the dataset again, or leave the episode out "
            "with --dataset.episodes."
        )
    starts = np.concatenate([[0], np.flatnonzero(np.diff(index)) + 1]).astype(np.int64)
    ends = np.append(starts[1:], len(index))
    expected = np.arange(len(index)) - np.repeat(starts, ends - starts)
    if len(starts) != len(order) or not np.array_equal(numeric["frame_index"], expected):
        raise DatasetError(
            f"{metadata.root / 'data'}: the frames of an episode must follow one another with "
            "frame_index 0, 1, 2, ... and they do not. Fetch the dataset again or record it anew."
        )
    return (starts, ends), np.repeat(np.arange(len(starts)), ends - starts)
