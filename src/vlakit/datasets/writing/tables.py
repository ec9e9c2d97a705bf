# SPDX-License-Identifier: Apache-2.0
"""Arrow schemas and files as LeRobot 0.6.1 writes them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlakit.files import written_whole

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def frame_schema(features: Mapping[str, Mapping[str, Any]]) -> pa.Schema:
    """Return the schema of data files: one column per feature that is no video.

    The `huggingface` entry tells the `datasets` library, with which LeRobot reads, of the columns.
    """
    fields, described = [], {}
    for name, entry in features.items():
        if entry["dtype"] == "video":
            continue
        arrow, described[name] = _column(entry["dtype"], tuple(entry["shape"]))
        fields.append(pa.field(name, arrow))
    info: dict[str, Any] = {"info": {"features": described}}
    info["fingerprint"] = hashlib.sha256(json.dumps(info).encode()).hexdigest()[:16]
    return pa.schema(fields, metadata={"huggingface": json.dumps(info)})


def _column(dtype: str, shape: tuple[int, ...]) -> tuple[pa.DataType, dict[str, Any]]:
    if dtype == "image":
        return IMAGE_TYPE, {"_type": "Image"}
    value = {"dtype": dtype, "_type": "Value"}
    if dtype == "string":
        return pa.string(), value
    scalar = pa.from_numpy_dtype(np.dtype(dtype))
    if shape in ((), (1,)):
        return scalar, value
    if len(shape) == 1:
        return pa.list_(scalar, shape[0]), {"feature": value, "length": shape[0], "_type": "List"}
    nested = scalar
    for _ in shape:
        nested = pa.list_(nested)
    return nested, {"shape": list(shape), "dtype": dtype, "_type": f"Array{len(shape)}D"}


def numeric_column(values: np.ndarray, target: pa.DataType) -> pa.Array:
    """Return (frames,) or (frames, *shape) numbers as an arrow column of the type `target`."""
    if pa.types.is_fixed_size_list(target):
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=target)
    if not pa.types.is_list(target):
        return pa.array(values, type=target)
    column = pa.array(values.ravel())
    for size, rest in zip(values.shape[:0:-1], _outer_sizes(values.shape), strict=True):
        column = pa.ListArray.from_arrays(np.arange(rest + 1, dtype=np.int32) * size, column)
    return column


def _outer_sizes(shape: tuple[int, ...]) -> list[int]:
    return [int(np.prod(shape[:axis])) for axis in range(len(shape) - 1, 0, -1)]


def episode_schema(
    video_keys: Sequence[str], stats: Mapping[str, Mapping[str, np.ndarray]]
) -> pa.Schema:
    """Return the schema of `meta/episodes` files, columns in LeRobot's order."""
    fields = [("episode_index", pa.int64()), ("tasks", pa.list_(pa.string()))]
    fields += [(name, pa.int64()) for name in ("length", "data/chunk_index", "data/file_index")]
    fields += [(f"dataset_{side}_index", pa.int64()) for side in ("from", "to")]
    for key in video_keys:
        fields += [(f"videos/{key}/{part}_index", pa.int64()) for part in ("chunk", "file")]
        fields += [(f"videos/{key}/{side}_timestamp", pa.float64()) for side in ("from", "to")]
    for feature, entry in stats.items():
        for name, value in entry.items():
            nested = pa.int64() if name == "count" else pa.float64()
            for _ in range(max(1, value.ndim)):
                nested = pa.list_(nested)
            fields.append((f"stats/{feature}/{name}", nested))
    fields += [(f"meta/episodes/{part}_index", pa.int64()) for part in ("chunk", "file")]
    return pa.schema(fields)


def write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """Write `tasks.parquet`: the pandas form of a frame indexed by the task's text."""
    columns = [
        {
            "name": name,
            "field_name": name,
            "pandas_type": kind,
            "numpy_type": numpy_type,
            "metadata": None,
        }
        for name, kind, numpy_type in (
            ("task_index", "int64", "int64"),
            ("task", "unicode", "object"),
        )
    ]
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [
            {
                "name": None,
                "field_name": None,
                "pandas_type": "unicode",
                "numpy_type": "object",
                "metadata": {"encoding": "UTF-8"},
            }
        ],
        "columns": columns,
        "attributes": {},
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.3.3",
    }
    table = pa.table(
        {
            "task_index": pa.array(range(len(tasks)), pa.int64()),
            "task": pa.array(tasks, pa.string()),
        }
    ).replace_schema_metadata({"pandas": json.dumps(pandas)})
    with written_whole(path) as part:
        pq.write_table(table, part, compression="snappy")


class ParquetFileWriter:
    """A parquet file that grows by row groups; it is named `<name>.part` until it is closed."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.num_rows = 0
        self._part = path.with_name(path.name + ".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._sink = pa.OSFile(str(self._part), "wb")
        self._writer = pq.ParquetWriter(
            self._sink, schema, compression="snappy", use_dictionary=True
        )

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._sink.tell()

    def write(self, table: pa.Table) -> None:
        """Append a table as one row group."""
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self.num_rows += table.num_rows

    def close(self) -> None:
        """Write the footer and give the file its name."""
        self._writer.close()
        self._sink.close()
        os.replace(self._part, self.path)

    def abort(self) -> None:
        """Throw the file away."""
        self._writer.close()
        self._sink.close()
        self._part.unlink(missing_ok=True)
