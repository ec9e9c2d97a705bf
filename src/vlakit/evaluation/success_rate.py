# SPDX-License-Identifier: Apache-2.0
"""How sure a success rate is."""

from __future__ import annotations

import math

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


def wilson_interval(successes: int, num_rollouts: int, *, z: float = Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of a success rate, as fractions in [0, 1].

    Unlike the textbook interval it stays inside [0, 1] and does not collapse at 0 or 100 %.
    Source: Wilson, "Probable inference" (1927).

    Args:
        successes: Rollouts that succeeded.
        num_rollouts: All rollouts; 0 gives (0, 1).
        z: Normal quantile of the confidence level.
    """
    if not 0 <= successes <= num_rollouts:
        raise ValueError(f"successes must be between 0 and {num_rollouts}, got {successes}")
    if num_rollouts == 0:
        return 0.0, 1.0
    rate = successes / num_rollouts
    weight = 1.0 / (1.0 + z * z / num_rollouts)
    centre = weight * (rate + z * z / (2 * num_rollouts))
    spread = rate * (1 - rate) / num_rollouts + (z / (2 * num_rollouts)) ** 2
    half = weight * z * math.sqrt(spread)
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == num_rollouts else centre + half
    return low, high
