# SPDX-License-Identifier: Apache-2.0
"""Chunks that can be encoded, and words for those that cannot."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlakit.errors import ProcessingError
from vlakit.processing.fast.spelling import SURROGATES, is_character


def as_batch(chunks: ArrayLike) -> NDArray:
    """Return chunks as (batch, horizon, action_dim), finite.

    Raises:
        ProcessingError: they are something else.
    """
    batch = np.asarray(chunks)
    if batch.ndim == 2:
        batch = batch[None]
    if batch.ndim != 3 or 0 in batch.shape[1:] or batch.dtype.kind not in "fiu":
        raise ProcessingError(
            f"chunks are {batch.dtype} of shape {batch.shape}; expected numbers of shape "
            "(batch, horizon, action_dim) or (horizon, action_dim)."
        )
    if not np.isfinite(batch).all():
        _, what = first_row(~np.isfinite(batch))
        raise ProcessingError(
            f"{what} holds NaN or infinity; expected finite numbers. Look for such values in the "
            "dataset's actions and statistics."
        )
    return batch


def are_characters(codes: NDArray[np.int32], *, strictly: bool) -> bool:
    """Return whether all codes are characters, negative ones aside; strictly, not U+FFFD."""
    if codes.max() < SURROGATES[0]:
        return True
    return bool(is_character(codes, but_replacement=strictly).all())


def check_characters(codes: NDArray[np.int32], *, strictly: bool) -> None:
    """Raise a ProcessingError for codes (batch, length) that are not; see `are_characters`."""
    if not are_characters(codes, strictly=strictly):
        _, what = first_row(~is_character(codes, but_replacement=strictly))
        raise ProcessingError(
            f"{what} has coefficients that no character stands for: its values are thousands of "
            "units large. Check the normalisation of the actions."
        )


def first_row(is_bad: NDArray[np.bool_]) -> tuple[int, str]:
    """Return the first row with something bad, and words for it and how many more there are."""
    rows = np.flatnonzero(is_bad.reshape(len(is_bad), -1).any(axis=1))
    more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
    return int(rows[0]), f"chunk {rows[0]}{more}"
