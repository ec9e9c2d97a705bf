# SPDX-License-Identifier: Apache-2.0
"""One HTML page that shows what a run gave: success per task, loss curve, videos, commands.

The page stands alone: styles, curve and videos are inside the file, so it can be mailed or kept.
This module knows nothing of policies or simulators: everything arrives as values.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from vlakit.evaluation.html_page import facts, page, rate_cell, section


@dataclass(frozen=True, kw_only=True)
class SuccessCell:
    """Rollouts of one task under one condition."""

    successes: int
    num_rollouts: int


@dataclass(frozen=True, kw_only=True)
class SuccessRow:
    """One task: its instruction and one cell per condition, in the order of the columns."""

    task: str
    instruction: str
    cells: Sequence[SuccessCell]
    policy: str = ""
    """Which policy acted, where the page compares several."""


@dataclass(frozen=True, kw_only=True)
class RolloutVideo:
    """One video with the words below it."""

    path: Path
    caption: str
    is_success: bool | None = None


@dataclass(frozen=True, kw_only=True)
class VideoGroup:
    """Videos that belong side by side."""

    title: str
    videos: Sequence[RolloutVideo]


@dataclass(frozen=True, kw_only=True)
class LossCurve:
    """The training loss of one policy. Losses of different policies have different units."""

    title: str
    points: Sequence[tuple[int, float]]
    """(step, loss) pairs."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A table: one column per policy, one row per quantity."""

    policies: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]
    """Name of the quantity, then its value for each policy."""
    note: str = ""
    """What the figures show, and what they do not."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that the page shows."""

    title: str
    summary: str
    conditions: Sequence[str]
    """Column headings of the success table: the policy first, then the controls."""
    rows: Sequence[SuccessRow]
    condition_notes: Sequence[str] = ()
    """One sentence per condition that says what was done and what to expect of it."""
    comparison: Comparison | None = None
    """Speeds and sizes of the policies, beside one another."""
    losses: Sequence[LossCurve] = ()
    video_groups: Sequence[VideoGroup] = ()
    facts: Sequence[tuple[str, str]] = field(default_factory=tuple)
    """Name and value of what a reader wants to know: times, sizes, versions."""
    commands: Sequence[tuple[str, str]] = field(default_factory=tuple)
    """What each step is called and the command that repeats it."""


def write_report(report: Report, path: Path) -> None:
    """Write the page to a file; its folder must exist."""
    parts = [
        "<h2>Success</h2>",
        _success_table(report),
        _comparison(report.comparison),
        _videos(report.video_groups),
        _losses(report.losses),
        section("This run", facts(report.facts)),
        _commands(report.commands),
    ]
    path.write_text(page(report.title, report.summary, parts), encoding="utf-8")


def _success_table(report: Report) -> str:
    has_policies = any(row.policy for row in report.rows)
    columns = [*(["policy"] if has_policies else []), "task", *report.conditions]
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = []
    for row in report.rows:
        names = [f"<th>{escape(row.policy)}</th>"] if has_policies else []
        names.append(
            f"<td>{escape(row.task)}<br><span class='mute'>“{escape(row.instruction)}”</span></td>"
        )
        body.append(f"<tr>{''.join([*names, *map(_cell, row.cells)])}</tr>")
    notes = zip(report.conditions, report.condition_notes, strict=False)
    legend = "".join(f"<li><b>{escape(name)}</b>: {escape(note)}</li>" for name, note in notes)
    return (
        f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>"
        "</table></div><p class='mute'>Brackets: 95 % Wilson interval of the success rate.</p>"
        f"<ul>{legend}</ul>"
    )


def _cell(cell: SuccessCell) -> str:
    return f"<td class='number'>{rate_cell(cell.successes, cell.num_rollouts).html}</td>"


def _comparison(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in ["", *comparison.policies])
    rows = ""
    for name, values in comparison.rows:
        cells = "".join(f"<td>{escape(value)}</td>" for value in values)
        rows += f"<tr><th>{escape(name)}</th>{cells}</tr>"
    note = f"<p class='mute'>{escape(comparison.note)}</p>" if comparison.note else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<h2>Cost</h2><div class='wide'>{table}</div>{note}"


def _videos(groups: Sequence[VideoGroup]) -> str:
    if not groups:
        return ""
    blocks = []
    for group in groups:
        figures = "".join(_figure(video) for video in group.videos)
        blocks.append(f"<h3>{escape(group.title)}</h3><div class='group'>{figures}</div>")
    return "<h2>Rollouts</h2>" + "".join(blocks)


def _losses(curves: Sequence[LossCurve]) -> str:
    drawn = [
        f"<h3>{escape(curve.title)}</h3>{loss_curve_svg(curve.points)}"
        for curve in curves
        if curve.points
    ]
    return "<h2>Training loss</h2>" + "".join(drawn) if drawn else ""


def _figure(video: RolloutVideo) -> str:
    data = base64.b64encode(video.path.read_bytes()).decode("ascii")
    verdict = ""
    if video.is_success is not None:
        kind, word = ("good", "success") if video.is_success else ("bad", "failure")
        verdict = f" <b class='{kind}'>{word}</b>"
    return (
        f"<figure><video src='data:video/mp4;base64,{data}' controls loop muted autoplay "
        f"playsinline></video><figcaption>{escape(video.caption)}{verdict}</figcaption></figure>"
    )


def _commands(commands: Sequence[tuple[str, str]]) -> str:
    if not commands:
        return ""
    blocks = "".join(
        f"<p>{escape(name)}</p><pre>{escape(command)}</pre>" for name, command in commands
    )
    return f"<h2>Each step by hand</h2>{blocks}"


def loss_curve_svg(
    points: Sequence[tuple[int, float]], *, width: int = 860, height: int = 260
) -> str:
    """Return the training loss as an SVG line, from 0 to its largest value, five ticks an axis."""
    left, right, top, bottom = 52, 24, 12, 30
    last_step = max(step for step, _ in points)
    largest = max(loss for _, loss in points) * 1.05

    def place(step: float, loss: float) -> tuple[float, float]:
        x = left + (width - left - right) * step / last_step
        return x, top + (height - top - bottom) * (1 - loss / largest)

    ticks = []
    for fraction in (0.0, 0.25, 0.5, 0.75, 1.0):
        step, loss = fraction * last_step, fraction * largest
        x, y = place(step, loss)
        ticks.append(
            f"<line x1='{left}' x2='{width - right}' y1='{y:.1f}' y2='{y:.1f}' stroke='#8883'/>"
            f"<text x='{left - 6}' y='{y + 4:.1f}' text-anchor='end'>{loss:.2f}</text>"
            f"<text x='{x:.1f}' y='{height - 8}' text-anchor='middle'>{step:.0f}</text>"
        )
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
    return (
        f"<svg viewBox='0 0 {width} {height}' role='img' aria-label='training loss against step' "
        f"font-size='11' fill='currentColor'>{''.join(ticks)}"
        f"<polyline points='{line}' fill='none' stroke='#2f7d4f' stroke-width='2'/></svg>"
    )
