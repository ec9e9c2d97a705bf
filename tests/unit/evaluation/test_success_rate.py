# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from vlakit.evaluation.success_rate import wilson_interval


@pytest.mark.parametrize(
    ("successes", "num_rollouts", "low", "high"),
    [
        # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # By symmetry.
        (20, 20, 0.8389, 1.0),
        (182, 263, 0.6338, 0.7447),
    ],
)
def test_known_intervals(successes: int, num_rollouts: int, low: float, high: float) -> None:
    assert wilson_interval(successes, num_rollouts) == pytest.approx((low, high), abs=6e-5)


def test_nothing_tried_says_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_more_successes_than_rollouts_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 3, got 4"):
        wilson_interval(4, 3)
