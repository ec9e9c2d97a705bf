# SPDX-License-Identifier: Apache-2.0
"""Two policies on the same episodes: how much they differ, and how sure that is.

Both start from the same seeds, so every episode is a pair of outcomes. What both solve or both fail
says nothing about a difference; pairs that disagree do. Comparing pair by pair therefore needs far
fewer episodes than comparing two rates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from vlakit.evaluation.success_rate import Z_95, wilson_interval


@dataclass(frozen=True, kw_only=True)
class PairedCounts:
    """How often each of the four outcomes of a pair occurred."""

    both: int = 0
    only_a: int = 0
    """Pairs in which A succeeded and B failed."""
    only_b: int = 0
    neither: int = 0

    @classmethod
    def of(cls, outcomes: Iterable[tuple[bool, bool]]) -> PairedCounts:
        """Count pairs (success of A, success of B)."""
        pairs = [(bool(a), bool(b)) for a, b in outcomes]
        return cls(
            both=pairs.count((True, True)),
            only_a=pairs.count((True, False)),
            only_b=pairs.count((False, True)),
            neither=pairs.count((False, False)),
        )

    @property
    def num_pairs(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def successes_a(self) -> int:
        return self.both + self.only_a

    @property
    def successes_b(self) -> int:
        return self.both + self.only_b

    @property
    def difference(self) -> float:
        """Success rate of B minus that of A, in [-1, 1]."""
        return (self.only_b - self.only_a) / self.num_pairs


def paired_difference_interval(counts: PairedCounts, *, z: float = Z_95) -> tuple[float, float]:
    """Return the interval of B's success rate minus A's, within [-1, 1].

    Source: Newcombe, "Improved confidence intervals for the difference between binomial proportions
    based on paired data" (1998), method 10: the distances from each rate to the ends of its Wilson
    interval, squared, added and corrected for the correlation of the pairs.

    Args:
        counts: At least one pair.
        z: Normal quantile of the confidence level.
    """
    n = counts.num_pairs
    if n == 0:
        raise ValueError("no pairs to compare")
    rate_a, rate_b = counts.successes_a / n, counts.successes_b / n
    low_a, high_a = wilson_interval(counts.successes_a, n, z=z)
    low_b, high_b = wilson_interval(counts.successes_b, n, z=z)
    phi = _correlation(counts)
    below = _square_and_add(rate_b - low_b, high_a - rate_a, phi)
    above = _square_and_add(high_b - rate_b, rate_a - low_a, phi)
    return max(-1.0, counts.difference - below), min(1.0, counts.difference + above)


def _square_and_add(first: float, second: float, phi: float) -> float:
    return math.sqrt(max(0.0, first**2 - 2 * phi * first * second + second**2))


def _correlation(counts: PairedCounts) -> float:
    """Return the phi coefficient with the source's continuity correction of positive ones."""
    n = counts.num_pairs
    margins = math.prod(
        (counts.successes_a, n - counts.successes_a, counts.successes_b, n - counts.successes_b)
    )
    if margins == 0:
        return 0.0
    excess: float = counts.both * counts.neither - counts.only_a * counts.only_b
    if excess > 0:
        excess = max(0.0, excess - n / 2)
    return excess / math.sqrt(margins)


def mcnemar_p_value(counts: PairedCounts) -> float:
    """Return the exact two-sided p-value of "A and B succeed equally often".

    Under that hypothesis each pair that disagrees is a fair coin, so the smaller count follows the
    binomial distribution with probability 1/2. Source: McNemar (1947), in its exact form.
    """
    disagreeing = counts.only_a + counts.only_b
    smaller = min(counts.only_a, counts.only_b)
    tail = sum(math.comb(disagreeing, count) for count in range(smaller + 1))
    return min(1.0, 2 * tail / 2**disagreeing)
