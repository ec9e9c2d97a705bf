# SPDX-License-Identifier: Apache-2.0
"""`compare.html`: the differences of two evaluations by task, and films of where they part."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from vlakit.evaluation.charts import DifferenceRow, differences
from vlakit.evaluation.compare import Comparison, Pair, TaskComparison, differing_settings
from vlakit.evaluation.html_page import (
    Cell,
    VideoShelf,
    command,
    facts,
    folded,
    note,
    number_cell,
    page,
    rate_cell,
    section,
    table,
    text_cell,
)
from vlakit.evaluation.paired import mcnemar_p_value, paired_difference_interval
from vlakit.evaluation.saved import find_file

PAGE_FILE = "compare.html"
MAX_FILMED_PAIRS = 12
EXPLAINED = (
    "Difference: success rate of B minus that of A, with Newcombe's 95 % interval for pairs. p: "
    "exact two-sided McNemar test that both succeed equally often, not corrected for the number of "
    "tasks. Each row has the same episodes on both sides, without those where a simulator failed."
)


def comparison_page(
    comparison: Comparison, folders: tuple[Path, Path], target: Path, *, command_line: str
) -> str:
    """Return the page.

    Args:
        comparison: Two evaluations that pair.
        folders: Of A and of B, where the films lie.
        target: The folder that the page will be in.
        command_line: What repeats the comparison.
    """
    return page(
        "Two evaluations, pair by pair",
        verdict(comparison.pooled),
        [
            facts([(name, _name(comparison, name, folders)) for name in "AB"]),
            section("Success", _table(comparison), note(EXPLAINED)),
            section("Difference, B minus A", differences(_rows(comparison))),
            section("Settings that differ", _settings(comparison)),
            section("Where they part", _films(comparison, folders, target)),
            section("To repeat it", command(command_line)),
        ],
    )


def verdict(pooled: TaskComparison) -> str:
    """Return what the comparison says, in one or two sentences."""
    counts = pooled.counts
    if counts.num_pairs == 0:
        return "No pair was finished by both."
    low, high = paired_difference_interval(counts)
    what = (
        f"Success of B minus that of A: {counts.difference:+.1%}, 95 % interval {low:+.1%} to "
        f"{high:+.1%}, p = {mcnemar_p_value(counts):.2g}, over {counts.num_pairs} pairs."
    )
    return what if not low <= 0 <= high else f"{what} No difference is shown."


def _name(comparison: Comparison, name: str, folders: tuple[Path, Path]) -> str:
    result = comparison.a if name == "A" else comparison.b
    folder = folders[0] if name == "A" else folders[1]
    checkpoint = result.settings.get("checkpoint")
    return f"{folder}" + (f", of {checkpoint}" if checkpoint else "")


def _all_rows(comparison: Comparison) -> list[TaskComparison]:
    rows = list(comparison.tasks)
    return [*rows, comparison.pooled] if len(rows) > 1 else rows


def _table(comparison: Comparison) -> str:
    columns = ["task", "A", "B", "only A", "only B", "difference", "p"]
    rows = [_row(task) for task in _all_rows(comparison)]
    if comparison.pooled.num_errors:
        columns.append("left out")
        for row, task in zip(rows, _all_rows(comparison), strict=True):
            row.append(number_cell(task.num_errors))
    return table(columns, rows, label="success of both by task")


def _row(task: TaskComparison) -> list[Cell]:
    counts = task.counts
    n = counts.num_pairs
    difference = Cell("–", -2.0)
    if n:
        low, high = paired_difference_interval(counts)
        difference = Cell(
            f"{counts.difference:+.0%} <span class='mute'>[{low:+.0%}, {high:+.0%}]</span>",
            counts.difference,
        )
    name = text_cell(task.name)
    return [
        Cell(f"<div class='task'>{name.html}</div>", name.value),
        rate_cell(counts.successes_a, n),
        rate_cell(counts.successes_b, n),
        number_cell(counts.only_a),
        number_cell(counts.only_b),
        difference,
        number_cell(mcnemar_p_value(counts), "{:.2g}"),
    ]


def _rows(comparison: Comparison) -> list[DifferenceRow]:
    return [
        DifferenceRow(task.name, task.counts.difference, *paired_difference_interval(task.counts))
        for task in _all_rows(comparison)
        if task.pairs
    ]


def _settings(comparison: Comparison) -> str:
    differing = differing_settings(comparison.a, comparison.b)
    rows = [
        [text_cell(f"--{name}"), *(Cell(escape(json.dumps(value)), str(value)) for value in both)]
        for name, both in differing.items()
    ]
    return table(("flag", "A", "B"), rows, label="settings that differ") if rows else ""


def _films(comparison: Comparison, folders: tuple[Path, Path], target: Path) -> str:
    shelf, blocks = VideoShelf(target), []
    for task in comparison.tasks:
        for pair in task.pairs:
            films = _films_of(pair, folders)
            if pair.a.success == pair.b.success or len(blocks) == MAX_FILMED_PAIRS or not films:
                continue
            figures = "".join(
                f"<div>{shelf.figure(film, name, success)}</div>" for name, film, success in films
            )
            title = f"{task.name}, seed {pair.a.seed}"
            blocks.append(folded(title, f"<div class='group'>{figures}</div>", is_open=True))
    return "".join(blocks) + shelf.remark() if blocks else ""


def _films_of(pair: Pair, folders: tuple[Path, Path]) -> Sequence[tuple[str, Path, bool]]:
    sides = (("A", folders[0], pair.a), ("B", folders[1], pair.b))
    return [
        (name, film, episode.success)
        for name, folder, episode in sides
        if (film := find_file(folder, episode.video_path)) is not None
    ]
