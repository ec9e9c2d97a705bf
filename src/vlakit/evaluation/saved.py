# SPDX-License-Identifier: Apache-2.0
"""An evaluation read back from its output folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from vlakit.environments.base import TaskEntry
from vlakit.errors import ConfigError
from vlakit.evaluation.results import INFO_FILE, EpisodeResult, EvaluationResult, TaskResult
from vlakit.files import read_json


def load_result(folder: Path) -> EvaluationResult:
    """Return what an evaluation gave.

    Files of earlier versions lack some entries of their episodes; those take their defaults.

    Raises:
        ConfigError: The folder holds no finished evaluation, or a damaged one.
    """
    path = folder / INFO_FILE
    info = read_json(
        path,
        ConfigError,
        missing=": expected the output folder of a finished `vlakit eval`. Give its --output_dir.",
        damaged="Run the evaluation again.",
    )
    try:
        return EvaluationResult(
            tasks=[_task(entry) for entry in info["per_task"]],
            seconds=float(info["overall"]["eval_s"]),
            settings=info.get("settings", {}),
        )
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} lacks {error}: expected one that `vlakit eval` wrote. Run the evaluation "
            "again; files of other programs lack the seeds."
        ) from error


def _task(entry: Mapping[str, Any]) -> TaskResult:
    return TaskResult(
        TaskEntry(entry["task_group"], entry["task_id"], entry["task"]),
        entry["instruction"],
        [_episode(episode) for episode in entry["episodes"]],
    )


def _episode(entry: Mapping[str, Any]) -> EpisodeResult:
    known = {field.name for field in fields(EpisodeResult)}
    return EpisodeResult(**{name: value for name, value in entry.items() if name in known})


def find_file(folder: Path, recorded: str | None) -> Path | None:
    """Return a video, trace or error file of an evaluation, also when its folder was moved.

    Args:
        folder: The evaluation's output folder.
        recorded: The path as the evaluation recorded it.
    """
    if recorded is None:
        return None
    path = Path(recorded)
    below = [folder.joinpath(*path.parts[-depth:]) for depth in (3, 2, 1)]
    return next((place for place in (*below, path) if place.is_file()), None)
