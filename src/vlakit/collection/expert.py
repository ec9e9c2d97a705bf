# SPDX-License-Identifier: Apache-2.0
"""Scripted experts -> LeRobot dataset: `vlakit collect`.

Every attempt is one seed. Workers run ahead on the next seeds, but episodes are taken in the order
of their seeds, so the dataset is the same for any number of workers.
"""

from __future__ import annotations

import select
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from vlakit.collection.config import CollectConfig
from vlakit.datasets import LeRobotDatasetWriter
from vlakit.environments.collection_record import write_record
from vlakit.environments.expert_episode import ExpertEpisode
from vlakit.environments.messages import Message
from vlakit.environments.vector import available_cores
from vlakit.environments.worker_process import EnvironmentWorker, close_all
from vlakit.errors import ConfigError, SimulatorError, VlakitError
from vlakit.features import TASK
from vlakit.progress import progress_bar

COUNTED = "episodes kept, {task.fields[failed]} failed"
MAX_FAILURES_PER_EPISODE = 4
"""An expert that fails more often than this (plus ten) is given up."""


@dataclass
class TaskSummary:
    """What came of one task."""

    task: str
    instruction: str
    num_frames: int = 0
    num_steps: list[int] = field(default_factory=list)
    """Recorded frames of each kept episode."""
    kept_seeds: list[int] = field(default_factory=list)
    failed_seeds: list[int] = field(default_factory=list)


@dataclass
class CollectionSummary:
    """What `collect` wrote."""

    root: Path
    tasks: list[TaskSummary]
    seconds: float

    @property
    def num_episodes(self) -> int:
        return sum(len(task.kept_seeds) for task in self.tasks)

    @property
    def num_frames(self) -> int:
        return sum(task.num_frames for task in self.tasks)


def collect(config: CollectConfig, *, console: Console | None = None) -> CollectionSummary:
    """Record the expert of every task until each has its successful episodes.

    Raises:
        ConfigError: The dataset's folder exists, or a task is unknown.
        SimulatorError: A simulator cannot run, or its expert hardly ever succeeds.
    """
    console = console or Console(stderr=True)
    started = time.monotonic()
    entries = config.env.task_list()
    for entry in entries:
        config.env.check_expert(entry.name)
    if config.root is not None and Path(config.root).expanduser().exists():
        raise ConfigError(
            f"--root={config.root} exists, expected a new folder: give another one or remove it."
        )
    for line in config.env.check_machine():
        console.print(line, highlight=False, soft_wrap=True)
    summaries = [TaskSummary(entry.name, config.env.instruction(entry.name)) for entry in entries]
    writer = LeRobotDatasetWriter.create(
        config.repo_id,
        config.env.fps,
        config.env.features(),
        root=config.root,
        robot_type=config.env.type,
        use_videos=config.video,
        vcodec=config.vcodec,
    )
    root = Path(writer.root)
    try:
        with (
            writer,
            closing(ExpertPool(config)) as pool,
            progress_bar(console, COUNTED) as progress,
        ):
            for summary in summaries:
                _collect_task(config, summary, pool.episodes(summary.task), writer, progress)
    except (VlakitError, OSError):
        shutil.rmtree(root, ignore_errors=True)
        raise
    _write_record(root, config, summaries)
    return CollectionSummary(root, summaries, time.monotonic() - started)


class ExpertPool:
    """Worker processes that let the expert act, one seed each, several seeds ahead."""

    def __init__(self, config: CollectConfig) -> None:
        self._config = config
        num_workers = min(config.num_workers or available_cores(), config.episodes)
        self._workers = [EnvironmentWorker(config.env) for _ in range(num_workers)]
        self._running: dict[EnvironmentWorker, int] = {}

    def episodes(self, task: str) -> Iterator[ExpertEpisode]:
        """Yield the attempts at a task in the order of their seeds, without end."""
        for worker in self._workers:
            if worker in self._running:
                worker.receive()  # an attempt at the task before, which nobody waits for
            worker.set_task(task)
        self._running.clear()
        ready: dict[int, ExpertEpisode] = {}
        next_seed = wanted = self._config.seed
        while True:
            for worker in self._workers:
                # Running far ahead would only fill the memory with pictures.
                is_near = next_seed < wanted + 2 * len(self._workers)
                if worker not in self._running and is_near:
                    worker.send(_demonstrate(self._config, next_seed))
                    self._running[worker] = next_seed
                    next_seed += 1
            for worker in select.select(list(self._running), [], [])[0]:
                seed = self._running.pop(worker)
                reply = worker.receive()
                ready[seed] = ExpertEpisode(**reply.fields, frames=dict(reply.arrays))
            while wanted in ready:
                yield ready.pop(wanted)
                wanted += 1

    def close(self) -> None:
        """End the workers."""
        close_all(self._workers)


def _collect_task(
    config: CollectConfig,
    summary: TaskSummary,
    episodes: Iterator[ExpertEpisode],
    writer: LeRobotDatasetWriter,
    progress: Progress,
) -> None:
    bar = progress.add_task(summary.task, total=config.episodes, failed=0)
    while len(summary.kept_seeds) < config.episodes:
        episode = next(episodes)
        if episode.success:
            _save(writer, episode, summary.instruction)
            summary.kept_seeds.append(episode.seed)
            summary.num_steps.append(episode.num_steps)
            summary.num_frames += episode.num_steps
        else:
            summary.failed_seeds.append(episode.seed)
            _check_failures(config, summary)
        progress.update(bar, completed=len(summary.kept_seeds), failed=len(summary.failed_seeds))


def _save(writer: LeRobotDatasetWriter, episode: ExpertEpisode, instruction: str) -> None:
    for row in range(episode.num_steps):
        frame = {name: values[row] for name, values in episode.frames.items()}
        writer.add_frame({**frame, TASK: instruction})
    writer.save_episode()


def _demonstrate(config: CollectConfig, seed: int) -> Message:
    return Message(
        {
            "command": "demonstrate",
            "seed": seed,
            "noise": config.noise,
            "frames_after_success": config.frames_after_success,
        }
    )


def _check_failures(config: CollectConfig, summary: TaskSummary) -> None:
    failed, kept = len(summary.failed_seeds), len(summary.kept_seeds)
    if failed > 10 + MAX_FAILURES_PER_EPISODE * kept:
        raise SimulatorError(
            f"The expert of --env.task={summary.task} failed {failed} of {failed + kept} times, "
            f"expected mostly successes: lower --noise={config.noise:g} or raise "
            f"--env.episode_length={config.env.episode_length}."
        )


def _write_record(root: Path, config: CollectConfig, summaries: list[TaskSummary]) -> None:
    settings = asdict(config) | {"env": {"type": config.env.type, **asdict(config.env)}}
    attempts: list[dict[str, Any]] = []
    episode_index = 0
    for summary in summaries:
        for seed in sorted(summary.kept_seeds + summary.failed_seeds):
            success = seed in summary.kept_seeds
            index = episode_index if success else None
            attempts.append(
                {"task": summary.task, "seed": seed, "success": success, "episode_index": index}
            )
            episode_index += int(success)
    write_record(root, settings, attempts)
