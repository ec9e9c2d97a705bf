# SPDX-License-Identifier: Apache-2.0
"""Charts as SVG text: a histogram, lines of actions, rates over steps, differences by task.

All are drawn in one colour on the page's own background, so they read in light and in dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

WIDTH = 860
LEFT, RIGHT = 56, 16
COLOUR = "var(--accent)"
NUM_BINS = 30
STRIP_HEIGHT = 46
ROW_HEIGHT = 30
MAX_POINTS = 400
"""Of one line; longer ones are thinned out."""


class RatePoint(NamedTuple):
    """A success rate at a training step; all rates as fractions."""

    step: int
    rate: float
    low: float
    high: float


class DifferenceRow(NamedTuple):
    """A difference of two success rates with its interval, fractions in [-1, 1]."""

    name: str
    difference: float
    low: float
    high: float


def histogram(values: Sequence[float], *, unit: str) -> str:
    """Return how often values occur, from 0 to the 99th percentile; larger ones in the last bar.

    Args:
        values: Not negative, at least one.
        unit: Written at the axis.
    """
    p50, p95, p99 = (float(value) for value in np.percentile(values, (50, 95, 99)))
    end = max(p99, 1e-9) * 1.05
    counts, _ = np.histogram(np.minimum(values, end), bins=NUM_BINS, range=(0, end))
    height, bottom = 200, 164
    scale = (bottom - 24) / counts.max()
    bar = (WIDTH - LEFT - RIGHT) / NUM_BINS

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / end

    parts = [
        f"<rect x='{LEFT + index * bar + 1:.1f}' y='{bottom - count * scale:.1f}' "
        f"width='{bar - 2:.1f}' height='{count * scale:.1f}' fill='{COLOUR}' opacity='.75'>"
        f"<title>{count} between {index * end / NUM_BINS:.0f} and "
        f"{(index + 1) * end / NUM_BINS:.0f} {escape(unit)}</title></rect>"
        for index, count in enumerate(counts)
        if count
    ]
    for row, (name, value) in enumerate((("median", p50), ("95 %", p95))):
        # Two lines of text, so that marks close to one another do not overlap.
        parts.append(_line(x(value), x(value), 4 + 13 * row, bottom, dashed=True))
        side = "end" if x(value) > WIDTH - 150 else "start"
        shift = -4 if side == "end" else 4
        label = f"{name} {value:.0f} {unit}"
        parts.append(_text(x(value) + shift, 14 + 13 * row, label, side))
    parts += [
        _text(x(fraction * end), bottom + 16, f"{fraction * end:.0f}", "middle")
        for fraction in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    parts.append(_text(LEFT - 6, bottom - counts.max() * scale + 4, str(counts.max()), "end"))
    parts.append(_line(LEFT, WIDTH - RIGHT, bottom, bottom))
    parts.append(_text(WIDTH / 2, height - 4, unit, "middle"))
    return _svg(height, f"histogram of {unit}", parts)


def traces(actions: NDArray[Any], names: Sequence[str]) -> str:
    """Return one strip per dimension of the actions, over the steps of an episode.

    Args:
        actions: (steps, action_dim).
        names: One per dimension.
    """
    num_steps = len(actions)
    stride = -(-num_steps // MAX_POINTS)
    parts = []
    for row, name in enumerate(names):
        values = actions[:, row]
        low, high = float(values.min()), float(values.max())
        spread = (high - low) or 1.0
        top = row * STRIP_HEIGHT + 6
        reach = STRIP_HEIGHT - 14
        points = " ".join(
            f"{LEFT + (WIDTH - LEFT - RIGHT) * step / max(1, num_steps - 1):.1f},"
            f"{top + reach * (1 - (float(values[step]) - low) / spread):.1f}"
            for step in range(0, num_steps, stride)
        )
        parts.append(f"<polyline points='{points}' {_STROKE} stroke-width='1.5'/>")
        parts.append(_line(LEFT, WIDTH - RIGHT, top + reach + 3, top + reach + 3))
        parts.append(_text(0, top + reach / 2 + 4, name, "start"))
        parts.append(_text(LEFT - 6, top + 7, f"{high:.3g}", "end"))
        parts.append(_text(LEFT - 6, top + reach + 2, f"{low:.3g}", "end"))
    height = len(names) * STRIP_HEIGHT + 22
    parts.append(_text(LEFT, height - 6, "step 0", "start"))
    parts.append(_text(WIDTH - RIGHT, height - 6, f"step {num_steps - 1}", "end"))
    return _svg(height, "actions over the steps of the episode", parts)


def rates_over_steps(points: Sequence[RatePoint], *, label: str) -> str:
    """Return success rates with their intervals over the steps of a training run."""
    height, top, bottom = 246, 12, 204
    last = max(point.step for point in points) or 1

    def x(step: float) -> float:
        return LEFT + 12 + (WIDTH - LEFT - RIGHT - 24) * step / last

    def y(rate: float) -> float:
        return top + (bottom - top) * (1 - rate)

    parts = []
    for percent in (0, 25, 50, 75, 100):
        parts.append(_line(LEFT, WIDTH - RIGHT, y(percent / 100), y(percent / 100)))
        parts.append(_text(LEFT - 6, y(percent / 100) + 4, f"{percent} %", "end"))
        parts.append(
            _text(x(last * percent / 100), bottom + 18, f"{last * percent // 100}", "middle")
        )
    for point in points:
        at = x(point.step)
        parts.append(f"<path d='M{at:.1f} {y(point.low):.1f}V{y(point.high):.1f}' {_STROKE}/>")
        parts.append(
            f"<circle cx='{at:.1f}' cy='{y(point.rate):.1f}' r='4' fill='{COLOUR}'><title>step "
            f"{point.step}: {point.rate:.0%} [{point.low:.0%}, {point.high:.0%}]</title></circle>"
        )
    line = " ".join(f"{x(point.step):.1f},{y(point.rate):.1f}" for point in points)
    parts.append(f"<polyline points='{line}' {_STROKE} opacity='.6'/>")
    parts.append(_text(WIDTH / 2, height - 5, "training step", "middle"))
    return _svg(height, label, parts)


def differences(rows: Sequence[DifferenceRow]) -> str:
    """Return differences of success rates with their intervals, one row each, around zero."""
    left, height = 240, len(rows) * ROW_HEIGHT + 40

    def x(value: float) -> float:
        return left + (WIDTH - left - RIGHT - 20) * (value + 1) / 2

    bottom = len(rows) * ROW_HEIGHT + 6
    parts = []
    for percent in (-100, -50, 0, 50, 100):
        at = x(percent / 100)
        parts.append(_line(at, at, 4, bottom, strong=percent == 0))
        parts.append(_text(at, bottom + 18, f"{percent:+d} %" if percent else "0", "middle"))
    for index, row in enumerate(rows):
        middle = index * ROW_HEIGHT + 20
        parts.append(_text(0, middle + 4, row.name, "start"))
        parts.append(
            f"<path d='M{x(row.low):.1f} {middle}H{x(row.high):.1f}' {_STROKE} stroke-width='2'/>"
            f"<circle cx='{x(row.difference):.1f}' cy='{middle}' r='5' fill='{COLOUR}'><title>"
            f"{row.difference:+.0%} [{row.low:+.0%}, {row.high:+.0%}]</title></circle>"
        )
    return _svg(height, "difference of success rates by task", parts)


_STROKE = f"fill='none' stroke='{COLOUR}'"


def _line(
    x0: float, x1: float, y0: float, y1: float, *, dashed: bool = False, strong: bool = False
) -> str:
    dash = " stroke-dasharray='4 3'" if dashed else ""
    colour = "currentColor" if dashed or strong else "#8884"
    return (
        f"<line x1='{x0:.1f}' x2='{x1:.1f}' y1='{y0:.1f}' y2='{y1:.1f}' stroke='{colour}'{dash}/>"
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'>{escape(text)}</text>"


def _svg(height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f"<div class='chart'><svg viewBox='0 0 {WIDTH} {height:.0f}' role='img' font-size='12' "
        f"aria-label='{escape(label)}' fill='currentColor'>{''.join(parts)}</svg></div>"
    )
