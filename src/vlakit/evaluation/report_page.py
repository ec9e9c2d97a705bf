# SPDX-License-Identifier: Apache-2.0
"""`report.html` of an evaluation, made of nothing but its output folder.

eval_info.json  ─┐
videos, traces  ─┼─ write_evaluation_report ── report.html
error files     ─┘
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlakit.evaluation.charts import histogram, rates_over_steps
from vlakit.evaluation.checkpoint_history import evaluated_checkpoints, logged_rollouts
from vlakit.evaluation.html_page import (
    Cell,
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
from vlakit.evaluation.report_episodes import episode_table, error_texts, films, trace_strips
from vlakit.evaluation.report_replay import replay_part
from vlakit.evaluation.results import EpisodeResult, EvaluationResult, TaskResult, plan_percentiles
from vlakit.evaluation.saved import load_result
from vlakit.evaluation.success_rate import wilson_interval
from vlakit.files import written_whole

REPORT_FILE = "report.html"
BRACKETS = "Brackets: 95 % Wilson interval of the success rate. Click a heading to sort."


def write_evaluation_report(folder: Path) -> Path:
    """Write the page of a finished evaluation into its output folder; returns its path.

    Raises:
        ConfigError: The folder holds no finished evaluation.
    """
    result = load_result(folder)
    path = folder / REPORT_FILE
    with written_whole(path) as part:
        part.write_text(evaluation_page(result, folder), encoding="utf-8")
    return path


def evaluation_page(result: EvaluationResult, folder: Path) -> str:
    """Return the page.

    Args:
        result: As it is in the folder's `eval_info.json`.
        folder: Where videos, traces and error files lie.
    """
    settings = result.settings
    return page(
        _title(settings),
        _summary(result),
        [
            _troubles(result.episodes),
            section("Success", *_success(result)),
            section("Replay", replay_part(folder)),
            section("Success over checkpoints", *_history(result, folder)),
            section("Rollouts", films(result, folder)),
            section("Planning time", _latency(result.episodes)),
            section("Actions", trace_strips(result, folder)),
            section("Episodes", episode_table(result)),
            section("Errors", error_texts(result, folder)),
            section("This evaluation", *_provenance(result)),
        ],
    )


def _title(settings: Mapping[str, Any]) -> str:
    simulator = settings.get("env", {}).get("type", "a simulator")
    return f"{settings.get('policy', 'policy')} on {simulator}"


def _summary(result: EvaluationResult) -> str:
    finished = [episode for episode in result.episodes if episode.is_finished]
    successes = sum(episode.success for episode in finished)
    if not finished:
        return f"None of {len(result.episodes)} rollouts finished: see Errors."
    low, high = wilson_interval(successes, len(finished))
    tasks = "1 task" if len(result.tasks) == 1 else f"{len(result.tasks)} tasks"
    return (
        f"{successes} of {len(finished)} rollouts succeeded: {successes / len(finished):.1%}, 95 % "
        f"interval {low:.1%} to {high:.1%}, over {tasks}, in {_duration(result.seconds)}."
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} minutes"


def _troubles(episodes: Sequence[EpisodeResult]) -> str:
    """Return what a reader must know before believing a rate."""
    num_errors = sum(not episode.is_finished for episode in episodes)
    counts = (
        (num_errors, "rollouts ended in an error of the simulator and are in no rate"),
        (
            sum(e.retries for e in episodes),
            "times a simulator died or hung; its rollout began anew",
        ),
        (
            sum(e.decode_failures for e in episodes),
            f"of {sum(e.num_plans for e in episodes)} plans could not be decoded",
        ),
        (sum(e.ended == "too_slow" for e in episodes), "rollouts ran out of planning time"),
    )
    lines = "".join(f"<li><b>{count}</b> {words}</li>" for count, words in counts if count)
    return f"<ul class='troubles'>{lines}</ul>" if lines else ""


def _success(result: EvaluationResult) -> list[str]:
    groups: dict[str, list[TaskResult]] = {}
    for task in result.tasks:
        groups.setdefault(task.entry.group, []).append(task)
    parts = []
    has_suites = len(result.tasks) > len(groups)  # simulators without suites: each task its own
    if has_suites:
        rows = [_suite_row(name, tasks) for name, tasks in groups.items()]
        if len(groups) > 1:
            rows.append(_suite_row("all", result.tasks))
        columns = ("suite", "tasks", "success", "mean of tasks")
        parts.append(table(columns, rows, label="success by suite"))
    has_several = has_suites and len(groups) > 1
    parts.append(_task_table(result.tasks, has_suites=has_several))
    return [*parts, note(BRACKETS)]


def _suite_row(name: str, tasks: Sequence[TaskResult]) -> list[Cell]:
    finished = [task for task in tasks if task.finished]
    mean = sum(task.success_rate for task in finished) / len(finished) if finished else None
    successes = sum(task.num_successes for task in tasks)
    return [
        text_cell(name),
        number_cell(len(tasks)),
        rate_cell(successes, sum(len(task.finished) for task in tasks)),
        number_cell(mean, "{:.1%}"),
    ]


def _task_table(tasks: Sequence[TaskResult], *, has_suites: bool) -> str:
    columns: dict[str, list[Cell]] = {}
    if has_suites:
        columns["suite"] = [text_cell(task.entry.group) for task in tasks]
    columns["task"] = [_task_cell(task) for task in tasks]
    columns["success"] = [rate_cell(task.num_successes, len(task.finished)) for task in tasks]
    columns["steps to success"] = [number_cell(_steps_to_success(task)) for task in tasks]
    columns["plan ms, median"] = [number_cell(plan_percentiles(t.episodes)[0]) for t in tasks]
    columns["plan ms, 95 %"] = [number_cell(plan_percentiles(task.episodes)[1]) for task in tasks]
    troubles = {
        "undecoded": [sum(episode.decode_failures for episode in t.episodes) for t in tasks],
        "retries": [sum(episode.retries for episode in task.episodes) for task in tasks],
        "errors": [len(task.episodes) - len(task.finished) for task in tasks],
    }
    for name, counts in troubles.items():
        if any(counts):
            columns[name] = [number_cell(count) for count in counts]
    rows = list(zip(*columns.values(), strict=True))
    return table(list(columns), rows, label="success by task")


def _task_cell(task: TaskResult) -> Cell:
    name = text_cell(task.entry.name)
    if task.instruction == task.entry.name:
        return Cell(f"<div class='task'>{name.html}</div>", name.value)
    says = text_cell(f"“{task.instruction}”").html
    return Cell(
        f"<div class='task'>{name.html}<br><span class='mute'>{says}</span></div>", name.value
    )


def _steps_to_success(task: TaskResult) -> float | None:
    steps = [episode.num_steps for episode in task.finished if episode.success]
    return sum(steps) / len(steps) if steps else None


def _history(result: EvaluationResult, folder: Path) -> list[str]:
    parts = []
    points = evaluated_checkpoints(result, folder)
    if len(points) > 1:
        parts.append(rates_over_steps(points, label="success rate of evaluated checkpoints"))
        parts.append(note("Evaluations of this run's checkpoints on the same tasks, all tasks."))
    logged = logged_rollouts(str(result.settings.get("checkpoint", "")))
    if logged:
        parts.append(rates_over_steps(logged, label="success rate while training"))
        parts.append(note("Rollouts while training, from the run's log."))
    return parts


def _latency(episodes: Sequence[EpisodeResult]) -> str:
    times = [value for episode in episodes for value in episode.plan_ms]
    if not times:
        return ""
    words = (
        f"{len(times)} plans, from pictures to actions. The time of a plan is that of its whole "
        "call, which may have planned for other episodes as well."
    )
    return histogram(times, unit="ms per plan") + note(words)


def _provenance(result: EvaluationResult) -> list[str]:
    settings = result.settings
    rows = [
        (name, str(settings[name]))
        for name in ("checkpoint", "date", "device", "machine", "seed")
        if settings.get(name) is not None
    ]
    versions = ", ".join(f"{name} {text}" for name, text in settings.get("versions", {}).items())
    if versions:
        rows.append(("versions", versions))
    parts = [facts(rows)]
    if settings.get("command"):
        parts += ["<h3>To repeat it</h3>", command(settings["command"])]
    text = json.dumps(settings.get("config", settings), indent=2, ensure_ascii=False)
    parts.append(folded("Configuration", command(text)))
    return parts
