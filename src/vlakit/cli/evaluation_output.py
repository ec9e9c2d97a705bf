# SPDX-License-Identifier: Apache-2.0
"""What an evaluation leaves: `eval_info.json`, `report.html`, and a table in the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vlakit.evaluation.provenance import machine, versions
from vlakit.evaluation.report_page import write_evaluation_report
from vlakit.evaluation.results import EpisodeResult, EvaluationResult
from vlakit.evaluation.success_rate import wilson_interval

LEAST_TOLD_S = 0.1
"""Preparation that takes less is not worth a line."""


def finish(
    result: EvaluationResult,
    output_dir: Path,
    *,
    argv: Sequence[str],
    config: Mapping[str, Any],
    console: Console,
    **settings: Any,
) -> EvaluationResult:
    """Write the files and print the table; returns the result with all its settings.

    Args:
        result: What the rollouts gave.
        output_dir: Where the files go.
        argv: The flags as typed, for the command that repeats it.
        config: All flags with their values, as JSON.
        console: Where the table is shown.
        **settings: Further entries of `settings`: policy, checkpoint, device.
    """
    provenance = {
        **settings,
        "date": datetime.now().isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "command": shlex.join(["vlakit", "eval", *argv]),
        "config": config,
    }
    result = replace(result, settings={**result.settings, **provenance})
    paths = [result.save(output_dir), write_evaluation_report(output_dir)]
    console.print(success_table(result))
    if result.preparation_s > LEAST_TOLD_S:
        told = f"{result.preparation_s:.1f} s of it to record the policy's chunks, once per size"
        console.print(told, highlight=False, soft_wrap=True)
    for path in paths:
        console.print(str(path), highlight=False, soft_wrap=True)
    return result


def success_table(result: EvaluationResult) -> Table:
    """Return the rate of every task, of every suite of several tasks, and of all."""
    title = f"success over {len(result.episodes)} rollouts in {result.seconds:.0f} s"
    table = Table(title=title)
    for column in ("task", "instruction", "success", "95 % interval", "rollouts"):
        table.add_column(column)
    groups: dict[str, list[EpisodeResult]] = {}
    for task in result.tasks:
        groups.setdefault(task.entry.group, []).extend(task.episodes)
        table.add_row(task.entry.name, task.instruction, *rate_texts(task.episodes))
    if len(result.tasks) > 1:
        table.add_section()
        if 1 < len(groups) < len(result.tasks):
            for name, episodes in groups.items():
                table.add_row(name, "", *rate_texts(episodes))
        table.add_row("all", "", *rate_texts(result.episodes))
    return table


def rate_texts(episodes: Sequence[EpisodeResult]) -> tuple[str, str, str]:
    """Return rate, interval and number of the finished rollouts, errors named beside it."""
    finished = [episode for episode in episodes if episode.is_finished]
    successes = sum(episode.success for episode in finished)
    low, high = wilson_interval(successes, len(finished))
    rate = f"{100 * successes / len(finished):.0f} %" if finished else "–"
    errors = len(episodes) - len(finished)
    count = f"{len(finished)}" + (f" (and {errors} errors)" if errors else "")
    return rate, f"{100 * low:.0f} to {100 * high:.0f} %", count
