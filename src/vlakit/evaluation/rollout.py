# SPDX-License-Identifier: Apache-2.0
"""An evaluation from its tasks to its result: schedule, workers, log, progress, all processes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from vlakit.environments.base import EnvConfig, TaskEntry
from vlakit.environments.vector import VectorEnvironment, available_cores
from vlakit.errors import SimulatorError
from vlakit.evaluation.config import EvalConfig
from vlakit.evaluation.distributed import Ranks
from vlakit.evaluation.engine import Engine
from vlakit.evaluation.episode_log import EpisodeLog, LogEntry, LogReader, write_log
from vlakit.evaluation.output_files import OutputFiles
from vlakit.evaluation.planning import Planner
from vlakit.evaluation.results import EpisodeResult, EvaluationResult, TaskResult
from vlakit.evaluation.resume import run_settings, start_folder
from vlakit.evaluation.schedule import Rollout, Schedule, Share
from vlakit.evaluation.watching import COUNTED, Bars, OtherProcesses
from vlakit.progress import progress_bar


def evaluate(  # noqa: PLR0913 - all but four with a default
    planner: Planner,
    env_config: EnvConfig,
    eval_config: EvalConfig,
    *,
    seed: int,
    seeds: Mapping[str, Sequence[int]] | None = None,
    output_dir: Path | None = None,
    resume: bool = False,
    identity: Mapping[str, Any] | None = None,
    ranks: Ranks | None = None,
    console: Console | None = None,
) -> EvaluationResult:
    """Roll a planner out on every task of `--env.task`, with seeds seed, seed + 1, ... for each.

    Args:
        planner: What acts.
        env_config: Simulator and tasks.
        eval_config: How many rollouts, and controls.
        seed: First seed. `vlakit collect` counts from 0, so 1000 (LeRobot's) is unseen.
        seeds: Task name -> its seeds, in the place of those that count on from `seed`.
        output_dir: Where log, videos, traces and errors go; None writes nothing.
        resume: Go on with what `output_dir` holds; otherwise it is begun anew.
        identity: What tells one policy from another, for `resume`.
        ranks: The processes that share the work, inside their context; None is this one alone.
        console: Where progress is shown; None is stderr.

    Returns:
        All rollouts of all processes.

    Raises:
        ConfigError: A task is unknown, or `resume` finds other settings.
        SimulatorError: A simulator cannot run.
    """
    ranks = ranks or Ranks()
    settings = run_settings(env_config, eval_config, seed=seed, identity=identity or {})
    run = _Evaluation(
        planner=planner,
        env_config=env_config,
        eval_config=eval_config,
        seed=seed,
        seeds=seeds,
        files=None if output_dir is None else OutputFiles(output_dir),
        ranks=ranks,
        console=(console or Console(stderr=True)) if ranks.is_first else Console(quiet=True),
    )
    return run.run(settings, resume=resume)


@dataclass(kw_only=True)
class _Evaluation:
    planner: Planner
    env_config: EnvConfig
    eval_config: EvalConfig
    seed: int
    seeds: Mapping[str, Sequence[int]] | None
    files: OutputFiles | None
    ranks: Ranks
    console: Console
    entries: list[TaskEntry] = field(init=False)
    instructions: dict[TaskEntry, str] = field(init=False)

    def __post_init__(self) -> None:
        self.entries = self.env_config.task_list()
        self.instructions = {entry: self._instruction(entry) for entry in self.entries}

    def run(self, settings: Mapping[str, Any], *, resume: bool) -> EvaluationResult:
        started = time.monotonic()
        if self.files is not None and self.ranks.is_first:
            start_folder(self.files, settings, resume=resume)
        prepared_s = self.planner.preparation_s
        before = self._shared(self._read_logs() if resume else [])
        ours = self._roll_out(before)
        outcomes = before | self._shared(ours)
        tasks = self._results(outcomes)
        self._finish_logs(tasks)
        seconds = time.monotonic() - started
        result = EvaluationResult(
            tasks,
            seconds,
            settings,
            num_resumed=len(before),
            preparation_s=self.planner.preparation_s - prepared_s,
        )
        if not any(episode.is_finished for episode in result.episodes):
            raise SimulatorError(_nothing_finished(result))
        return result

    def _roll_out(self, before: Mapping[tuple[TaskEntry, int], LogEntry]) -> list[LogEntry]:
        """Do this process's share; returns what it did."""
        done = {key: entry.episode for key, entry in before.items()}
        schedule = self._schedule(done, Share(self.ranks.rank, self.ranks.world_size))
        ours: list[LogEntry] = []
        with ExitStack() as stack:
            log = None
            if self.files is not None:
                log = stack.enter_context(EpisodeLog(self.files.log(self.ranks.rank)))
            bars = Bars(stack.enter_context(progress_bar(self.console, COUNTED)), schedule)
            bars.show(self.entries)
            others = OtherProcesses(schedule, self._other_logs())

            def on_finished(rollout: Rollout, episode: EpisodeResult) -> None:
                entry = LogEntry(rollout.entry, self.instructions[rollout.entry], episode)
                ours.append(entry)
                if log is not None:
                    log.append(entry)
                others.look()
                bars.show(self.entries)

            cores = max(1, available_cores() // self.ranks.local_world_size)
            if schedule.num_waiting:
                envs = VectorEnvironment(
                    self.env_config,
                    num_envs=self.eval_config.num_envs(cores, schedule.num_waiting),
                    use_processes=self.eval_config.use_async_envs,
                    timeout_s=self.eval_config.worker_timeout,
                )
                Engine(
                    planner=self.planner,
                    envs=stack.enter_context(envs),
                    schedule=schedule,
                    eval_config=self.eval_config,
                    instructions=self.instructions,
                    files=self.files,
                    fps=self.env_config.fps,
                    on_finished=on_finished,
                ).run()
        if self.ranks.world_size > 1:
            self.console.print("done here; waiting for the other processes")
        return ours

    def _schedule(
        self, done: Mapping[tuple[TaskEntry, int], EpisodeResult], share: Share
    ) -> Schedule:
        return Schedule(
            self.entries,
            first_seed=self.seed,
            n_episodes=self.eval_config.n_episodes,
            stop_width=self.eval_config.stop_when_decided,
            done=done,
            share=share,
            seeds=self.seeds,
        )

    def _results(self, outcomes: Mapping[tuple[TaskEntry, int], LogEntry]) -> list[TaskResult]:
        """Return what counts, chosen by the outcomes alone, whoever did how many of them."""
        done = {key: entry.episode for key, entry in outcomes.items()}
        schedule = self._schedule(done, Share())
        return [
            TaskResult(entry, self.instructions[entry], schedule.outcomes(entry))
            for entry in self.entries
        ]

    def _shared(self, entries: Iterable[LogEntry]) -> dict[tuple[TaskEntry, int], LogEntry]:
        """Return the entries of all processes, by task and seed."""
        gathered = self.ranks.gather([entry.to_json() for entry in entries])
        parsed = (LogEntry.from_json(line) for lines in gathered for line in lines)
        return {(entry.entry, entry.episode.seed): entry for entry in parsed}

    def _read_logs(self) -> list[LogEntry]:
        """Return what was done before; errors of a simulator get another chance."""
        if self.files is None:
            return []
        entries = LogReader(self.files.logs()).new_entries()
        return [entry for entry in entries if entry.episode.is_finished]

    def _other_logs(self) -> list[Path]:
        if self.files is None:
            return []
        ranks = set(range(self.ranks.world_size)) - {self.ranks.rank}
        return [self.files.log(rank) for rank in ranks]

    def _finish_logs(self, tasks: Sequence[TaskResult]) -> None:
        """Leave one log, in order."""
        if self.files is None:
            return
        self.ranks.gather(None)  # until then others may read logs
        if self.ranks.is_first:
            write_log(self.files.log(), tasks)
            for log in self.files.logs():
                if log != self.files.log():
                    log.unlink()

    def _instruction(self, entry: TaskEntry) -> str:
        given = self.eval_config.instructions.get(entry.name, self.eval_config.instruction)
        return self.env_config.instruction(entry.name) if given is None else given


def _nothing_finished(result: EvaluationResult) -> str:
    first = result.episodes[0]
    return (
        f"All {len(result.episodes)} rollouts ended in an error of the simulator, the first one "
        f"with: {first.reason} All of it is in {first.error_file}."
    )
