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


@lru_cache(maxsize=16)
def dct_matrix(horizon: int) -> Float64:
    """Return the orthonormal DCT-II, (horizon, horizon): frequencies in rows, time in columns."""
    frequency, time = np.mgrid[0:horizon, 0:horizon]
    matrix = np.cos(np.pi * (2 * time + 1) * frequency / (2 * horizon)) * np.sqrt(2 / horizon)
    matrix[0] = np.sqrt(1 / horizon)
    matrix.flags.writeable = False  # it is shared by every caller
    return matrix


def quantized_dct(chunks: Float64, scale: float) -> Float64:
    """Return round(scale * DCT(chunks)), halves to even, as whole floats.

    Args:
        chunks: (batch, horizon, action_dim), finite.
        scale: steps per unit.

    Returns:
        (batch, horizon * action_dim): the lowest frequency of every dimension first.
    """
    coefficients = np.matmul(dct_matrix(chunks.shape[1]), chunks)
    coefficients *= scale
    np.rint(coefficients, out=coefficients)
    return coefficients.reshape(len(chunks), -1)


def inverse_dct(coefficients: NDArray, scale: float, horizon: int, action_dim: int) -> Float64:
    """Return the chunks (batch, horizon, action_dim) of quantised coefficients.

    Args:
        coefficients: (batch, horizon * action_dim), as `quantized_dct` gives them.
        scale: steps per unit.
        horizon: time steps of a chunk.
        action_dim: numbers of a time step.
    """
    spectrum = coefficients.reshape(-1, horizon, action_dim) / scale
    return np.matmul(dct_matrix(horizon).T, spectrum)
