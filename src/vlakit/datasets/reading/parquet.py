# SPDX-License-Identifier: Apache-2.0
"""Parquet files of a dataset, with errors that name them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vlakit.errors import DatasetError


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a parquet file, or raise DatasetError naming it."""
    try:
        return pq.read_table(
            path, columns=list(columns) if columns else None, memory_map=True, partitioning=None
        )
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> DatasetError:
    """Return the error for a missing or damaged parquet file."""
    if not path.is_file():
        return DatasetError(
            f"{path} is missing, although the dataset's meta names it; fetch the dataset again."
        )
    return DatasetError(
        f"{path} is not a whole parquet file ({str(error).splitlines()[0]}). The copy or the "
        "recording was cut off: fetch the dataset again or record it anew."
    )


def column_names(path: Path) -> list[str]:
    """Return the columns of a parquet file, or raise DatasetError naming it."""
    try:
        return pq.read_schema(path).names
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


def flat_values(column: pa.ChunkedArray) -> pa.Array:
    """Return the values of a column in one array, lists of any depth flattened."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # what combine_chunks returns for no rows at all
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    flat: pa.Array = array
    if isinstance(flat, pa.ExtensionArray):
        flat = flat.storage
    while (
        pa.types.is_list(flat.type)
        or pa.types.is_fixed_size_list(flat.type)
        or (pa.types.is_large_list(flat.type))
    ):
        flat = flat.flatten()
    return flat
