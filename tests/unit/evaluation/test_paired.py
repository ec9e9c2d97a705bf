# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest

from vlakit.evaluation.paired import PairedCounts, mcnemar_p_value, paired_difference_interval


def counts(both: int, only_a: int, only_b: int, neither: int) -> PairedCounts:
    return PairedCounts(both=both, only_a=only_a, only_b=only_b, neither=neither)


def test_pairs_are_counted() -> None:
    outcomes = [(True, True)] * 4 + [(True, False)] * 3 + [(False, True)] * 2 + [(False, False)]
    assert PairedCounts.of(outcomes) == counts(4, 3, 2, 1)
    assert PairedCounts.of(outcomes).difference == pytest.approx(-0.1)


def test_interval_of_a_published_table() -> None:
    # Fagerland, Lydersen, Laake, "Statistical Analysis of Contingency Tables" (2017), chapter 8,
    # complete response before and after therapy: first minus second -0.0621 [-0.1186, -0.0046].
    table = counts(both=59, only_a=6, only_b=16, neither=80)
    assert table.difference == pytest.approx(0.0621, abs=5e-5)
    assert paired_difference_interval(table) == pytest.approx((0.0046, 0.1186), abs=5e-5)


def test_interval_by_hand() -> None:
    """10 pairs, 6 solved by both, 3 by B alone, 1 by neither: every step written out."""
    z2 = 1.959963984540054**2
    # Wilson: (p + z2/2n -+ z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n), for A 6/10 and B 9/10.
    low_a, high_a = 0.3126738, 0.8318197
    low_b, high_b = 0.5958500, 0.9821238
    centre, half = (0.6 + z2 / 20) / (1 + z2 / 10), math.sqrt(z2 * (0.024 + z2 / 400))
    assert low_a == pytest.approx(centre - half / (1 + z2 / 10), abs=1e-7)
    phi = max(0, 6 * 1 - 0 * 3 - 10 / 2) / math.sqrt(6 * 4 * 9 * 1)  # 0.068
    below = math.sqrt(
        (0.9 - low_b) ** 2 - 2 * phi * (0.9 - low_b) * (high_a - 0.6) + (high_a - 0.6) ** 2
    )
    above = math.sqrt(
        (high_b - 0.9) ** 2 - 2 * phi * (high_b - 0.9) * (0.6 - low_a) + (0.6 - low_a) ** 2
    )
    interval = paired_difference_interval(counts(6, 0, 3, 1))
    assert interval == pytest.approx((0.3 - below, 0.3 + above), abs=1e-6)


def test_swapping_the_two_turns_the_interval_round() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        both, a, b, neither = (int(n) for n in generator.integers(0, 12, 4))
        if both + a + b + neither == 0:
            continue
        low, high = paired_difference_interval(counts(both, a, b, neither))
        assert (-high, -low) == pytest.approx(
            paired_difference_interval(counts(both, b, a, neither)), abs=1e-12
        )
        assert -1 <= low <= (b - a) / (both + a + b + neither) <= high <= 1
        assert mcnemar_p_value(counts(both, a, b, neither)) == mcnemar_p_value(
            counts(neither, b, a, both)
        )


def test_nothing_solved_or_everything_solved_still_leaves_doubt() -> None:
    for table in (counts(0, 0, 0, 20), counts(20, 0, 0, 0)):
        low, high = paired_difference_interval(table)
        assert low == pytest.approx(-0.1611, abs=5e-5)  # Wilson's end of 0/20
        assert high == pytest.approx(0.1611, abs=5e-5)
    with pytest.raises(ValueError, match="no pairs"):
        paired_difference_interval(counts(0, 0, 0, 0))


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    [
        (0, 0, 1.0),
        (0, 1, 1.0),
        (0, 5, 2 / 32),
        (0, 6, 2 / 64),
        (5, 5, 1.0),
        (1, 8, 2 * (1 + 9) / 512),
        # 2 (1 + 22 + 231 + 1540 + 7315 + 26334 + 74613) / 2^22
        (6, 16, 0.052479),
    ],
)
def test_p_values_by_hand(only_a: int, only_b: int, p_value: float) -> None:
    assert mcnemar_p_value(counts(7, only_a, only_b, 2)) == pytest.approx(p_value, abs=1e-6)


def _tables(n: int) -> list[tuple[int, int, int, int]]:
    return [
        (both, a, b, n - both - a - b)
        for both in range(n + 1)
        for a in range(n + 1 - both)
        for b in range(n + 1 - both - a)
    ]


def test_the_interval_covers_the_truth_and_the_test_does_not_cry_wolf() -> None:
    """All 1,771 outcomes of 20 pairs, each with its exact probability: no sampling error."""
    n = 20
    tables = _tables(n)
    intervals = np.array([paired_difference_interval(counts(*table)) for table in tables])
    p_values = np.array([mcnemar_p_value(counts(*table)) for table in tables])
    ways = np.array([math.factorial(n) / math.prod(map(math.factorial, t)) for t in tables])
    coverages = []
    for truth in np.random.default_rng(0).dirichlet([1, 1, 1, 1], size=100):
        probability = ways * np.prod(truth ** np.array(tables), axis=1)
        assert probability.sum() == pytest.approx(1)
        difference = truth[2] - truth[1]
        is_covered = (intervals[:, 0] <= difference) & (difference <= intervals[:, 1])
        coverages.append(probability[is_covered].sum())
        equal = np.array([truth[0], (truth[1] + truth[2]) / 2, (truth[1] + truth[2]) / 2, truth[3]])
        under_equal = ways * np.prod(equal ** np.array(tables), axis=1)
        for level in (0.01, 0.05, 0.2):
            assert under_equal[p_values <= level].sum() <= level
    assert np.mean(coverages) == pytest.approx(0.95, abs=0.01)
    assert min(coverages) > 0.91
