# SPDX-License-Identifier: Apache-2.0
"""The transform and its rounding."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vlakit.processing.fast.dct import dct_matrix, inverse_dct, quantized_dct


@pytest.mark.parametrize("horizon", [1, 2, 7, 10, 50])
def test_the_matrix_is_orthonormal_and_as_defined(horizon: int) -> None:
    matrix = dct_matrix(horizon)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(horizon), atol=1e-13)
    for frequency in range(horizon):
        for time in range(horizon):
            factor = math.sqrt((1 if frequency == 0 else 2) / horizon)
            angle = math.pi * (2 * time + 1) * frequency / (2 * horizon)
            assert matrix[frequency, time] == pytest.approx(factor * math.cos(angle), abs=1e-15)


def test_lowest_frequencies_of_all_dimensions_come_first() -> None:
    chunk = np.broadcast_to(np.array([1.0, -2.0, 0.5]), (1, 4, 3))
    assert quantized_dct(chunk, 10.0).tolist() == [[20, -40, 10] + [0] * 9]


def test_halves_go_to_the_even_neighbour() -> None:
    chunks = np.array([0.05, 0.15, 0.25, -0.05, -0.15]).reshape(5, 1, 1)
    assert quantized_dct(chunks, 10.0).ravel().tolist() == [0, 2, 2, 0, -2]


def test_many_chunks_are_transformed_as_each_alone() -> None:
    chunks = np.random.default_rng(0).uniform(-1, 1, (1001, 10, 7))
    together = quantized_dct(chunks, 10.0)
    alone = np.concatenate([quantized_dct(chunk[None], 10.0) for chunk in chunks])
    np.testing.assert_array_equal(together, alone)
    decoded = inverse_dct(together, 10.0, 10, 7)
    alone = np.concatenate([inverse_dct(row[None], 10.0, 10, 7) for row in together])
    np.testing.assert_allclose(decoded, alone, atol=1e-14)


def test_huge_coefficients_stay_numbers() -> None:
    assert quantized_dct(np.full((1, 1, 2), 1e300), 10.0).tolist() == [[1 << 30, 1 << 30]]
