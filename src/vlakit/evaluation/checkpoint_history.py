# SPDX-License-Identifier: Apache-2.0
"""Success over the checkpoints of a training run: from its log, and from other evaluations."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vlakit.checkpoints.run_folder import CHECKPOINTS, PRETRAINED_MODEL
from vlakit.errors import ConfigError
from vlakit.evaluation.charts import RatePoint
from vlakit.evaluation.results import INFO_FILE, EvaluationResult
from vlakit.evaluation.saved import load_result
from vlakit.evaluation.success_rate import wilson_interval

LOG_FILE = "log.jsonl"
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def run_and_step(checkpoint: str) -> tuple[Path, int] | None:
    """Return the run's folder and the step of `<run>/checkpoints/<step>/pretrained_model`.

    None for anything else, such as a hub id. `last` is followed to the step it stands for.
    """
    path = Path(checkpoint).resolve()
    if path.name == PRETRAINED_MODEL:
        path = path.parent
    if path.parent.name != CHECKPOINTS or not path.name.isdigit():
        return None
    return path.parent.parent, int(path.name)


def evaluated_checkpoints(result: EvaluationResult, folder: Path) -> list[RatePoint]:
    """Return the success rate of every checkpoint of the run that was evaluated on the same tasks.

    Looked for in the folders beside this evaluation's (for the default folders, those of other days
    too). One checkpoint evaluated several times counts with its largest evaluation.

    Args:
        result: The evaluation at hand.
        folder: Its output folder.
    """
    found = run_and_step(str(result.settings.get("checkpoint", "")))
    if found is None:
        return []
    run, step = found
    largest = {step: result}
    for other in _beside(folder):
        place = run_and_step(str(other.settings.get("checkpoint", "")))
        if place is None or place[0] != run or _conditions(other) != _conditions(result):
            continue
        known = largest.get(place[1])
        if known is None or _num_finished(other) > _num_finished(known):
            largest[place[1]] = other
    return [_point(step, largest[step]) for step in sorted(largest)]


def logged_rollouts(checkpoint: str) -> list[RatePoint]:
    """Return the success rates that a training run logged while it trained."""
    found = run_and_step(checkpoint)
    if found is None or not (found[0] / LOG_FILE).is_file():
        return []
    points = {}
    for line in (found[0] / LOG_FILE).read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        rollouts = entry.get("rollouts") or {}
        if "n_episodes" in rollouts:
            count = int(rollouts["n_episodes"])
            successes = round(rollouts["pc_success"] * count / 100)
            points[entry["step"]] = RatePoint(
                entry["step"], successes / count, *wilson_interval(successes, count)
            )
    return [points[step] for step in sorted(points)]


def _beside(folder: Path) -> Iterator[EvaluationResult]:
    folder = folder.resolve()
    places = list(folder.parent.glob(f"*/{INFO_FILE}"))
    if _DATE.fullmatch(folder.parent.name):
        places = list(folder.parent.parent.glob(f"*/*/{INFO_FILE}"))
    for path in sorted(places):
        if path.parent == folder:
            continue
        try:
            yield load_result(path.parent)
        except ConfigError:
            continue  # not one of ours: its neighbours are no business of this evaluation


def _conditions(result: EvaluationResult) -> Mapping[str, Any]:
    """What has to be equal for two rates to stand on one line."""
    controls = result.settings.get("eval", {})
    names = ("blank_images", "instruction", "instructions")
    return {name: controls.get(name) for name in names} | {
        "tasks": sorted(task.entry.name for task in result.tasks)
    }


def _num_finished(result: EvaluationResult) -> int:
    return sum(len(task.finished) for task in result.tasks)


def _point(step: int, result: EvaluationResult) -> RatePoint:
    count = _num_finished(result)
    successes = sum(task.num_successes for task in result.tasks)
    return RatePoint(step, successes / max(1, count), *wilson_interval(successes, count))
