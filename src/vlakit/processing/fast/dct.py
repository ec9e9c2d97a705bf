# SPDX-License-Identifier: Apache-2.0
"""The discrete cosine transform of a batch of chunks, as one matrix product in float64.

Orthonormal DCT-II along time, per action dimension (Ahmed, Natarajan and Rao 1974):

    C[k, t] = sqrt(2 / horizon) * cos(pi * (2 t + 1) * k / (2 horizon))    for k > 0
    C[0, t] = sqrt(1 / horizon)

C is orthogonal, so its transpose is the inverse.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

_BLOCK_NUMBERS = 1 << 14
"""Numbers transformed at a time, so that they stay in the cache of one core."""
_LIMIT = float(1 << 30)
"""Where coefficients are cut off so that int32 holds them; far outside of what can be encoded."""


@lru_cache(maxsize=16)
def dct_matrix(horizon: int) -> Float64:
    """Return the orthonormal DCT-II, (horizon, horizon): frequencies in rows, time in columns."""
    frequency, time = np.mgrid[0:horizon, 0:horizon]
    matrix = np.cos(np.pi * (2 * time + 1) * frequency / (2 * horizon)) * np.sqrt(2 / horizon)
    matrix[0] = np.sqrt(1 / horizon)
    matrix.flags.writeable = False  # it is shared by every caller
    return matrix


def quantized_dct(chunks: NDArray, scale: float) -> NDArray[np.int32]:
    """Return round(scale * DCT(chunks)), halves to even.

    Args:
        chunks: (batch, horizon, action_dim), finite.
        scale: steps per unit.

    Returns:
        (batch, horizon * action_dim): the lowest frequency of every dimension first.
    """
    batch, horizon, action_dim = chunks.shape
    matrix = dct_matrix(horizon)
    coefficients = np.empty(chunks.shape, dtype=np.int32)
    step = max(1, _BLOCK_NUMBERS // (horizon * action_dim))
    for start in range(0, batch, step):
        values = _along_time(matrix, chunks[start : start + step])
        values *= scale
        np.clip(np.rint(values, out=values), -_LIMIT, _LIMIT, out=values)
        coefficients[start : start + step] = values.transpose(1, 0, 2)
    return coefficients.reshape(batch, horizon * action_dim)


def inverse_dct(coefficients: NDArray, scale: float, horizon: int, action_dim: int) -> Float64:
    """Return the chunks (batch, horizon, action_dim) of quantised coefficients.

    Args:
        coefficients: (batch, horizon * action_dim), as `quantized_dct` gives them.
        scale: steps per unit.
        horizon: time steps of a chunk.
        action_dim: numbers of a time step.
    """
    spectrum = coefficients.reshape(-1, horizon, action_dim)
    matrix = dct_matrix(horizon).T / scale
    chunks = np.empty(spectrum.shape, dtype=np.float64)
    step = max(1, _BLOCK_NUMBERS // (horizon * action_dim))
    for start in range(0, len(chunks), step):
        values = _along_time(matrix, spectrum[start : start + step])
        chunks[start : start + step] = values.transpose(1, 0, 2)
    return chunks


def _along_time(matrix: Float64, block: NDArray) -> Float64:
    """Return the matrix times every chunk, (horizon, batch, action_dim), by one product."""
    batch, horizon, action_dim = block.shape
    columns = np.empty((horizon, batch, action_dim))
    columns[...] = block.transpose(1, 0, 2)
    return (matrix @ columns.reshape(horizon, -1)).reshape(columns.shape)
