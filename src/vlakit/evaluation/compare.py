# SPDX-License-Identifier: Apache-2.0
"""Two evaluations, episode by episode: `vlakit eval --compare A B`.

Episodes pair by (task, seed, stored start). Runs that do not pair are refused rather than cut down
to what they share: a comparison over the episodes that happen to be in both is a different one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vlakit.errors import ConfigError
from vlakit.evaluation.paired import PairedCounts, mcnemar_p_value, paired_difference_interval
from vlakit.evaluation.results import EpisodeResult, EvaluationResult, TaskResult
from vlakit.evaluation.resume import FREE
from vlakit.evaluation.success_rate import wilson_interval

COMPARISON_FILE = "compare.json"
_SHOWN = 6
"""How many seeds or tasks a message names."""
_REPAIR = (
    "Evaluate both with the same --env.task, --seed and --eval.n_episodes, and without "
    "--eval.stop_when_decided."
)


class Pair(NamedTuple):
    """The same episode, played by A and by B."""

    a: EpisodeResult
    b: EpisodeResult


@dataclass(frozen=True)
class TaskComparison:
    """A task, or all tasks together."""

    name: str
    pairs: Sequence[Pair]
    """Those that both finished."""
    num_errors: int
    """Pairs that are left out because a simulator failed in one of them."""

    @property
    def counts(self) -> PairedCounts:
        return PairedCounts.of((pair.a.success, pair.b.success) for pair in self.pairs)

    def to_json(self) -> dict[str, Any]:
        """Return counts, both rates, their difference and the p-value; None without a pair."""
        counts, n = self.counts, self.counts.num_pairs
        entry: dict[str, Any] = {
            "task": self.name,
            "n_pairs": n,
            "n_errors": self.num_errors,
            "both": counts.both,
            "only_a": counts.only_a,
            "only_b": counts.only_b,
            "neither": counts.neither,
        }
        for name, successes in (("a", counts.successes_a), ("b", counts.successes_b)):
            entry[f"pc_success_{name}"] = 100 * successes / n if n else None
            entry[f"pc_success_{name}_interval_95"] = _percent(wilson_interval(successes, n))
        entry["pc_difference"] = 100 * counts.difference if n else None
        entry["pc_difference_interval_95"] = (
            _percent(paired_difference_interval(counts)) if n else None
        )
        entry["mcnemar_p"] = mcnemar_p_value(counts)
        return entry


@dataclass(frozen=True)
class Comparison:
    """Two evaluations whose episodes pair."""

    a: EvaluationResult
    b: EvaluationResult
    tasks: Sequence[TaskComparison]

    @property
    def pooled(self) -> TaskComparison:
        """All tasks together."""
        pairs = [pair for task in self.tasks for pair in task.pairs]
        return TaskComparison("all", pairs, sum(task.num_errors for task in self.tasks))

    def to_json(self) -> dict[str, Any]:
        """Return the content of `compare.json`; differences are B minus A, in percent."""
        return {
            "per_task": [task.to_json() for task in self.tasks],
            "pooled": self.pooled.to_json(),
            "differing_settings": differing_settings(self.a, self.b),
            "settings_a": dict(self.a.settings),
            "settings_b": dict(self.b.settings),
        }


def compare(a: EvaluationResult, b: EvaluationResult) -> Comparison:
    """Pair two evaluations.

    Raises:
        ConfigError: A task or an episode is in one of them only, or the simulators differ.
    """
    kinds = [str(result.settings.get("env", {}).get("type")) for result in (a, b)]
    if kinds[0] != kinds[1]:
        raise ConfigError(
            f"--compare: A was evaluated in --env.type={kinds[0]}, B in --env.type={kinds[1]}; "
            "expected the same simulator. Evaluate both in one."
        )
    tasks_a, tasks_b = _by_name(a), _by_name(b)
    _check_same("tasks", "task", list(tasks_a), list(tasks_b))
    return Comparison(a, b, [_pair_up(tasks_a[name], tasks_b[name]) for name in tasks_a])


def _by_name(result: EvaluationResult) -> dict[str, TaskResult]:
    """Return the tasks by name, with the suite where a name stands in two of them."""
    names = [task.entry.name for task in result.tasks]
    return {
        task.entry.name
        if names.count(task.entry.name) == 1
        else f"{task.entry.group}/{task.entry.name}": task
        for task in result.tasks
    }


def _pair_up(task_a: TaskResult, task_b: TaskResult) -> TaskComparison:
    episodes_a, episodes_b = (
        {_start(episode): episode for episode in task.episodes} for task in (task_a, task_b)
    )
    what = f"seeds of task {task_a.entry.name}"
    _check_same(what, "seed", list(episodes_a), list(episodes_b))
    pairs = [Pair(episodes_a[start], episodes_b[start]) for start in episodes_a]
    finished = [pair for pair in pairs if pair.a.is_finished and pair.b.is_finished]
    return TaskComparison(task_a.entry.name, finished, len(pairs) - len(finished))


def _start(episode: EpisodeResult) -> str:
    stored = "" if episode.init_state is None else f" (start {episode.init_state})"
    return f"{episode.seed}{stored}"


def _check_same(what: str, one: str, in_a: Sequence[str], in_b: Sequence[str]) -> None:
    lines = []
    for here, there, name in ((in_a, in_b, "A"), (in_b, in_a, "B")):
        missing = [entry for entry in here if entry not in there]
        if missing:
            shown = ", ".join(missing[:_SHOWN])
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            lines.append(f"only {name} has {one} {shown}{more}")
    if lines:
        raise ConfigError(
            f"--compare: the {what} do not pair: {'; '.join(lines)}. Expected the same episodes in "
            f"both. {_REPAIR}"
        )


def differing_settings(a: EvaluationResult, b: EvaluationResult) -> dict[str, list[Any]]:
    """Return the flags of simulator and rollouts in which two evaluations differ.

    Some differences are what is compared (a control, another picture size); others are mistakes. A
    reader of the comparison has to know them. Those that change no outcome are left out.
    """
    flat_a, flat_b = (
        _flat({name: result.settings.get(name, {}) for name in ("env", "eval")})
        for result in (a, b)
    )
    return {
        name: [flat_a.get(name), flat_b.get(name)]
        for name in {**flat_a, **flat_b}
        if flat_a.get(name) != flat_b.get(name) and name not in FREE
    }


def _flat(entry: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result = {}
    for name, value in entry.items():
        inner = _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else None
        result |= inner if inner is not None else {f"{prefix}{name}": value}
    return result


def _percent(interval: tuple[float, float]) -> list[float]:
    return [100 * end for end in interval]
