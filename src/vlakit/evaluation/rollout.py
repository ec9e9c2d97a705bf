# SPDX-License-Identifier: Apache-2.0
"""Rollouts: a planner looks at every waiting episode, its chunks are executed, and so on.

    round:   observation per slot -> plan (one batch) -> chunk per slot -> play (all slots at once)

A slot whose episode ended takes the next seed at once. Everything that outlives a round belongs to
the episode (`EpisodeMemory`), never to the slot or the policy, so outcomes do not depend on how
many environments run side by side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress, TaskID

from vlakit.environments.base import EnvConfig, TaskEntry
from vlakit.environments.messages import Message
from vlakit.environments.session import FILM
from vlakit.environments.vector import VectorEnvironment, available_cores
from vlakit.errors import ActionDecodeError
from vlakit.evaluation.config import EvalConfig
from vlakit.evaluation.episode_log import LOG_FILE, EpisodeLog, log_line
from vlakit.evaluation.results import EpisodeResult, EvaluationResult, TaskResult
from vlakit.evaluation.video import VideoFile
from vlakit.features import OBS_IMAGE, OBS_PREFIX
from vlakit.progress import progress_bar

COUNTED = "rollouts, {task.fields[successes]} succeeded"
GREY = 128
"""Value of every pixel under `--eval.blank_images`."""


@dataclass
class EpisodeMemory:
    """What a planner may remember: made anew for each episode."""

    seed: int
    instruction: str
    generator: torch.Generator
    """Noise of this episode, seeded with its seed; on the CPU."""
    num_plans: int = 0
    last_action: NDArray[np.float32] | None = None
    """What the robot was told last, in its units; held when a plan cannot be decoded."""
    history: dict[str, Any] = field(default_factory=dict)
    """Free for planners that look back."""


class Undecodable(NamedTuple):
    """In the place of a chunk: the policy's tokens spell none."""

    reason: str
    num_steps: int
    """How many steps the episode's last action is held instead."""


Plan = NDArray[np.float32] | Undecodable


class Planner(Protocol):
    """Turns observations into chunks of actions; a policy with its processors, for one."""

    def plan(
        self, observations: Sequence[Mapping[str, NDArray[Any]]], memories: Sequence[EpisodeMemory]
    ) -> Sequence[Plan]:
        """Return one chunk (steps, action_dim) per episode, in the robot's units, or why not.

        Args:
            observations: Per episode: cameras uint8 (height, width, 3), vectors float32 (n,).
            memories: Per episode, in the same order.
        """
        ...


def evaluate(
    planner: Planner,
    env_config: EnvConfig,
    eval_config: EvalConfig,
    *,
    seed: int,
    output_dir: Path | None = None,
    console: Console | None = None,
) -> EvaluationResult:
    """Roll a planner out on every task of `--env.task`, with seeds seed, seed + 1, ... for each.

    Args:
        planner: What acts.
        env_config: Simulator and tasks.
        eval_config: How many rollouts, and controls.
        seed: First seed. `vlakit collect` counts from 0, so 1000 (LeRobot's) is unseen.
        output_dir: Where `episodes.jsonl`, videos and traces go; None writes nothing.
        console: Where progress is shown; None is stderr.

    Raises:
        ConfigError: A task is unknown.
        SimulatorError: A simulator cannot run.
    """
    started = time.monotonic()
    console = console or Console(stderr=True)
    results = []
    entries = env_config.task_list()
    with (
        EpisodeLog(output_dir / LOG_FILE) if output_dir is not None else nullcontext() as log,
        VectorEnvironment(
            env_config,
            num_envs=eval_config.num_envs(available_cores()),
            use_processes=eval_config.use_async_envs,
        ) as envs,
        progress_bar(console, COUNTED) as progress,
    ):
        for entry in entries:
            envs.set_task(entry.name)
            rollouts = TaskRollouts(
                planner=planner,
                eval_config=eval_config,
                instruction=_instruction(entry, env_config, eval_config),
                first_seed=seed,
                fps=env_config.fps,
                log=partial(_log, log, entry),
                video_dir=output_dir and output_dir / "videos" / f"{entry.group}_{entry.task_id}",
            )
            bar = progress.add_task(entry.name, total=eval_config.n_episodes, successes=0)
            episodes = rollouts.run(envs, partial(_show, progress, bar))
            results.append(TaskResult(entry, rollouts.instruction, episodes))
    settings = {
        "seed": seed,
        "blank_images": eval_config.blank_images,
        "env": {"type": env_config.type, "task": env_config.task},
    }
    return EvaluationResult(results, time.monotonic() - started, settings)


@dataclass
class _Running:
    """An episode that occupies a slot."""

    result: EpisodeResult
    memory: EpisodeMemory
    observation: Mapping[str, NDArray[Any]]
    video: VideoFile | None
    max_steps: int
    is_moving: bool = False


@dataclass(kw_only=True)
class TaskRollouts:
    """The rollouts of one task."""

    planner: Planner
    eval_config: EvalConfig
    instruction: str
    first_seed: int
    fps: int
    log: Callable[[str, EpisodeResult], None]
    """Called with the instruction and each rollout as it finishes."""
    video_dir: Path | None = None
    _running: dict[int, _Running] = field(default_factory=dict, init=False)

    def run(
        self, envs: VectorEnvironment, on_progress: Callable[[int, int], None]
    ) -> list[EpisodeResult]:
        """Return one result per seed, in order.

        Args:
            envs: Set to the task.
            on_progress: Called with the number of finished and of successful rollouts.
        """
        results = [
            EpisodeResult(self.first_seed + index) for index in range(self.eval_config.n_episodes)
        ]
        waiting = list(enumerate(results))
        finished: list[EpisodeResult] = []
        with ExitStack() as stack:
            stack.callback(self._close_videos)
            while waiting or self._running:
                free = [slot for slot in range(len(envs.slots)) if slot not in self._running]
                self._start(envs, {slot: waiting.pop(0) for slot in free if waiting})
                for result in self._play_round(envs):
                    self.log(self.instruction, result)
                    finished.append(result)
                on_progress(len(finished), sum(result.success for result in finished))
        return results

    def _start(
        self, envs: VectorEnvironment, episodes: Mapping[int, tuple[int, EpisodeResult]]
    ) -> None:
        if not episodes:
            return
        num_videos = self.eval_config.max_videos if self.video_dir is not None else 0
        film = [slot for slot, (index, _) in episodes.items() if index < num_videos]
        seeds = {slot: result.seed for slot, (_, result) in episodes.items()}
        for slot, reply in envs.reset(seeds, film=film).items():
            index, result = episodes[slot]
            video = None
            if slot in film:
                assert self.video_dir is not None
                video = VideoFile(self.video_dir / f"eval_episode_{index}.mp4", self.fps)
                video.add(reply.arrays[FILM])
            generator = torch.Generator().manual_seed(result.seed)
            memory = EpisodeMemory(result.seed, self.instruction, generator)
            self._running[slot] = _Running(
                result, memory, self._look(reply), video, reply.fields["max_steps"]
            )

    def _play_round(self, envs: VectorEnvironment) -> list[EpisodeResult]:
        slots = list(self._running)
        episodes = [self._running[slot] for slot in slots]
        memories = [episode.memory for episode in episodes]
        started = time.perf_counter()
        plans = self.planner.plan([episode.observation for episode in episodes], memories)
        plan_ms = 1e3 * (time.perf_counter() - started)
        chunks, over = {}, []
        for slot, episode, plan in zip(slots, episodes, plans, strict=True):
            episode.result.num_plans += 1
            episode.result.plan_ms.append(plan_ms)
            episode.memory.num_plans += 1
            chunk = _executable(plan, episode)
            if chunk is None:
                self._end(episode)
                over.append(self._running.pop(slot).result)
            else:
                chunks[slot] = chunk
        film = [slot for slot in chunks if self._running[slot].video is not None]
        for slot, reply in envs.play(chunks, film=film).items():
            episode, num_steps = self._running[slot], len(reply.arrays["rewards"])
            episode.memory.last_action = chunks[slot][num_steps - 1]
            if self._record(episode, reply):
                over.append(self._running.pop(slot).result)
        return over

    def _record(self, episode: _Running, reply: Message) -> bool:
        """Take in what a chunk gave; returns whether the episode is over."""
        rewards, result = reply.arrays["rewards"], episode.result
        result.num_steps += len(rewards)
        result.sum_reward += float(rewards.sum())
        highest = float(rewards.max())
        result.max_reward = max(result.max_reward, highest) if episode.is_moving else highest
        episode.is_moving = True
        result.success |= bool(reply.arrays["successes"].any())
        result.clipped_actions = reply.fields["num_clipped"]
        if episode.video is not None:
            episode.video.add(reply.arrays[FILM])
        if not reply.fields["done"]:
            episode.observation = self._look(reply)
            return False
        out_of_time = result.num_steps >= episode.max_steps
        result.ended = "time_limit" if out_of_time else "terminated"
        if result.success:
            result.ended = "success"
        self._end(episode)
        return True

    def _end(self, episode: _Running) -> None:
        if episode.video is not None:
            episode.video.close()
            episode.result.video_path = str(episode.video.path)

    def _look(self, reply: Message) -> dict[str, NDArray[Any]]:
        """Return what the policy gets to see."""
        seen = {name: a for name, a in reply.arrays.items() if name.startswith(OBS_PREFIX)}
        if self.eval_config.blank_images:
            for name, array in seen.items():
                if name.startswith(OBS_IMAGE):
                    seen[name] = np.full_like(array, GREY)
        return seen

    def _close_videos(self) -> None:
        for episode in self._running.values():
            if episode.video is not None:
                episode.video.close()


def _executable(plan: Plan, episode: _Running) -> NDArray[np.float32] | None:
    """Return what to execute; None when there is nothing, which ends the episode as a failure."""
    if not isinstance(plan, Undecodable):
        _check_finite(plan, episode.memory)
        return plan
    episode.result.decode_failures += 1
    if episode.memory.last_action is None:
        episode.result.ended, episode.result.reason = "undecodable", plan.reason
        return None
    return np.tile(episode.memory.last_action, (plan.num_steps, 1))


def _check_finite(chunk: NDArray[np.float32], memory: EpisodeMemory) -> None:
    if not np.isfinite(chunk).all():
        raise ActionDecodeError(
            f"The policy returned an action that is not a number (seed {memory.seed}, plan "
            f"{memory.num_plans}), expected finite values: check its weights and statistics."
        )


def _instruction(entry: TaskEntry, env_config: EnvConfig, eval_config: EvalConfig) -> str:
    given = eval_config.instructions.get(entry.name, eval_config.instruction)
    return env_config.instruction(entry.name) if given is None else given


def _log(
    log: EpisodeLog | None, entry: TaskEntry, instruction: str, episode: EpisodeResult
) -> None:
    if log is not None:
        log.append(log_line(entry, instruction, episode))


def _show(progress: Progress, bar: TaskID, done: int, good: int) -> None:
    progress.update(bar, completed=done, successes=good)
