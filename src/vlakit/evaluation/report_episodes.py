# SPDX-License-Identifier: Apache-2.0
"""The parts of an evaluation's page that show single episodes: films, actions, errors, the list."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from vlakit.evaluation.charts import traces
from vlakit.evaluation.html_page import (
    Cell,
    VideoShelf,
    folded,
    note,
    number_cell,
    table,
    text_cell,
)
from vlakit.evaluation.results import EpisodeResult, EvaluationResult, TaskResult, plan_percentiles
from vlakit.evaluation.saved import find_file

OPEN_TASKS = 4
"""Tasks whose films are unfolded."""
ERROR_CHARACTERS = 4000
_CHOICES = ("all", "failures", "successes")


def films(result: EvaluationResult, folder: Path) -> str:
    """Return the recorded videos by task, failures first."""
    shelf = VideoShelf(folder)
    blocks = []
    for task in result.tasks:
        filmed = [
            (path, episode)
            for episode in task.episodes
            if (path := find_file(folder, episode.video_path)) is not None
        ]
        if not filmed:
            continue
        filmed.sort(key=lambda pair: pair[1].success)
        figures = "".join(
            f"<div class='{'success' if episode.success else 'failure'}'>"
            f"{shelf.figure(path, _caption(episode), episode.success)}</div>"
            for path, episode in filmed
        )
        title = f"{task.entry.name}: {len(filmed)} filmed of {len(task.episodes)}"
        is_open = len(blocks) < OPEN_TASKS
        blocks.append(folded(title, f"<div class='group'>{figures}</div>", is_open=is_open))
    if not blocks:
        return ""
    choices = "".join(
        f"<label><input type='radio' name='shown' value='{choice}'"
        f"{' checked' if choice == 'all' else ''}> {choice}</label>"
        for choice in _CHOICES
    )
    return f"<p class='choices'>{choices}</p>{''.join(blocks)}{shelf.remark()}"


def _caption(episode: EpisodeResult) -> str:
    start = "" if episode.init_state is None else f", start {episode.init_state}"
    return f"seed {episode.seed}{start}, {episode.num_steps} steps"


def trace_strips(result: EvaluationResult, folder: Path) -> str:
    """Return the actions of some filmed episodes: of each task a failure and a success."""
    blocks = []
    for task in result.tasks:
        for episode in _examples(task):
            path = find_file(folder, episode.trace_path)
            if path is None:
                continue
            with np.load(path, allow_pickle=False) as stored:
                actions = stored["actions"]
            if len(actions) == 0:
                continue
            names = [f"a{dimension}" for dimension in range(actions.shape[1])]
            verdict = "success" if episode.success else "failure"
            title = f"{task.entry.name}, {_caption(episode)}: {verdict}"
            blocks.append(folded(title, traces(actions, names), is_open=not blocks))
    if not blocks:
        return ""
    explained = "One strip per dimension of the executed action, scaled to its own range."
    return "".join(blocks) + note(explained)


def _examples(task: TaskResult) -> Sequence[EpisodeResult]:
    traced = [episode for episode in task.episodes if episode.trace_path is not None]
    failures = [episode for episode in traced if not episode.success]
    successes = [episode for episode in traced if episode.success]
    return [*failures[:1], *successes[:1]]


def episode_table(result: EvaluationResult) -> str:
    """Return every episode as a row of a folded table."""
    columns = (
        "task",
        "seed",
        "start",
        "ended",
        "steps",
        "reward",
        "plans",
        "plan p50, ms",
        "plan p95, ms",
        "undecoded",
        "clipped",
        "retries",
    )
    rows = [_row(task, episode) for task in result.tasks for episode in task.episodes]
    return folded(f"{len(rows)} episodes", table(columns, rows, label="all episodes"))


def _row(task: TaskResult, episode: EpisodeResult) -> list[Cell]:
    p50, p95 = plan_percentiles([episode])
    ended = episode.ended or ("success" if episode.success else "failure")
    kind = "good" if episode.success else "bad"
    reason = f"<br><span class='mute'>{escape(episode.reason)}</span>" if episode.reason else ""
    return [
        text_cell(task.entry.name),
        number_cell(episode.seed),
        number_cell(episode.init_state),
        Cell(f"<b class='{kind}'>{escape(ended.replace('_', ' '))}</b>{reason}", ended),
        number_cell(episode.num_steps),
        number_cell(episode.sum_reward, "{:.1f}"),
        number_cell(episode.num_plans),
        number_cell(p50),
        number_cell(p95),
        number_cell(episode.decode_failures),
        number_cell(episode.clipped_actions),
        number_cell(episode.retries),
    ]


def error_texts(result: EvaluationResult, folder: Path) -> str:
    """Return what simulators said when they failed, each episode's last words."""
    blocks = []
    for task in result.tasks:
        for episode in task.episodes:
            path = find_file(folder, episode.error_file)
            if path is None:
                continue
            text = path.read_text(encoding="utf-8", errors="replace")[-ERROR_CHARACTERS:]
            reason = f": {episode.reason}" if episode.reason else ""
            title = f"{task.entry.name}, seed {episode.seed}{reason}"
            blocks.append(folded(title, f"<pre>{escape(text)}</pre>"))
    return "".join(blocks)
