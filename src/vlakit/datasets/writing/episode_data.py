# SPDX-License-Identifier: Apache-2.0
"""One recorded episode as columns of numbers, as rows of a data file, and as statistics."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from vlakit.datasets.feature_stats import PixelHistogram, image_stride, sampled_frames
from vlakit.datasets.writing import tables
from vlakit.datasets.writing.episode_buffer import EpisodeBuffer

Columns = dict[str, np.ndarray | list]
"""Per feature that is no camera: (frames,) or (frames, *shape) numbers, or a list of texts."""


def episode_columns(
    buffer: EpisodeBuffer,
    features: Mapping[str, Mapping[str, Any]],
    *,
    fps: int,
    episode_index: int,
    first_index: int,
    tasks: Sequence[str],
) -> Columns:
    """Return all columns but cameras, in the order of the features.

    Args:
        buffer: the episode's frames.
        features: of the dataset.
        fps: frames per second.
        episode_index: number of the episode.
        first_index: frames of the dataset before this episode.
        tasks: instructions of the dataset, this episode's included.
    """
    frame_index = np.arange(len(buffer))
    own = {
        "timestamp": (frame_index / fps).astype(np.float32),
        "frame_index": frame_index,
        "episode_index": np.full(len(buffer), episode_index),
        "index": first_index + frame_index,
        "task_index": np.array([tasks.index(task) for task in buffer.tasks]),
    }
    columns: Columns = {}
    for name, entry in features.items():
        if name in own:
            columns[name] = own[name]
        elif name in buffer.values:
            values = buffer.values[name]
            is_text = entry["dtype"] == "string"
            columns[name] = values if is_text else _drop_single(np.stack(values))
    return columns


def _drop_single(values: np.ndarray) -> np.ndarray:
    return values[:, 0] if values.shape[1:] == (1,) else values


def episode_table(buffer: EpisodeBuffer, columns: Columns, schema: pa.Schema) -> pa.Table:
    """Return the episode as rows of a data file; cameras in the schema become PNG pictures."""
    arrays = []
    for field in schema:
        values = columns.get(field.name)
        if values is None:
            arrays.append(_png_column(buffer, field.name))
        elif isinstance(values, list):
            arrays.append(pa.array(values, field.type))
        else:
            arrays.append(tables.numeric_column(values, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _png_column(buffer: EpisodeBuffer, name: str) -> pa.Array:
    rows = []
    for number, pixels in enumerate(buffer.frames(name)):
        png = io.BytesIO()
        picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
        picture.save(png, format="PNG", compress_level=6)
        rows.append({"bytes": png.getvalue(), "path": f"frame-{number:06d}.png"})
    return pa.array(rows, tables.IMAGE_TYPE)


def camera_counts(buffer: EpisodeBuffer, name: str) -> PixelHistogram:
    """Count the pixels of a camera over the frames that LeRobot's rule samples."""
    height, width, channels = buffer.cameras[name]
    stride = image_stride(height, width)
    histogram = PixelHistogram(channels)
    for pixels in buffer.frames(name, sampled_frames(len(buffer))):
        histogram.add(pixels[None, ::stride, ::stride].transpose(0, 3, 1, 2))
    return histogram
