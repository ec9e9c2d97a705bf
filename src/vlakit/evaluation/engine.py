# SPDX-License-Identifier: Apache-2.0
"""The loop of an evaluation: slots play, whoever is ready is planned for, together.

    slot:   reset ─► ready ─► plan (one batch of all that are ready) ─► play a chunk ─► ready ...

No slot waits for another for long: a plan is made for those that are ready, and the others are
waited for only as long as a plan takes. So a slow policy gets full batches, and slow simulators
hold nobody up. A slot whose episode ended takes the next one at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from vlakit.environments.base import TaskEntry
from vlakit.environments.messages import Message
from vlakit.environments.vector import VectorEnvironment
from vlakit.environments.worker_process import WorkerError
from vlakit.errors import SimulatorError
from vlakit.evaluation.config import EvalConfig
from vlakit.evaluation.episode import RunningEpisode
from vlakit.evaluation.film import EpisodeFilm
from vlakit.evaluation.output_files import OutputFiles
from vlakit.evaluation.planning import Planner
from vlakit.evaluation.results import EpisodeResult
from vlakit.evaluation.schedule import Rollout, Schedule

PATIENCE = 1.0
"""How long to wait for more episodes to plan, in times of the last plan: no longer than planning
for them alone would cost."""
MOST_ERRORS = 10
"""So many errors before anything worked: the set-up is wrong, not the episodes."""


@dataclass(kw_only=True)
class Engine:
    """Does the rollouts of a schedule."""

    planner: Planner
    envs: VectorEnvironment
    schedule: Schedule
    eval_config: EvalConfig
    instructions: Mapping[TaskEntry, str]
    files: OutputFiles | None
    """None writes nothing."""
    fps: int
    on_finished: Callable[[Rollout, EpisodeResult], None]
    """Called with each rollout as it finishes."""
    _running: dict[int, RunningEpisode] = field(default_factory=dict, init=False)
    _ready: list[int] = field(default_factory=list, init=False)
    """Slots that wait for a plan, in the order in which they came."""
    _plan_seconds: float = field(default=0.0, init=False)
    _num_finished: int = field(default=0, init=False)
    _num_errors: int = field(default=0, init=False)

    def run(self) -> None:
        """Do all of them.

        Raises:
            SimulatorError: A simulator cannot start, or nothing works.
            ActionDecodeError: The policy returned an action that is not a number.
        """
        try:
            self._fill()
            while self._running:
                self._gather()
                if self._ready:
                    self._plan()
        finally:
            for episode in self._running.values():
                episode.discard()

    def _fill(self) -> None:
        """Give every free slot something to do."""
        for slot in range(len(self.envs.slots)):
            if slot in self._running:
                continue
            rollout = self.schedule.take(self.envs.slots[slot].task)
            if rollout is None:
                return
            self._start(slot, RunningEpisode(rollout, self.instructions[rollout.entry]))

    def _start(self, slot: int, episode: RunningEpisode) -> None:
        self._running[slot] = episode
        rollout, film = episode.rollout, self._is_filmed(episode.rollout)
        self.envs.reset(slot, rollout.entry.name, rollout.seed, film=film)

    def _is_filmed(self, rollout: Rollout) -> bool:
        return self.files is not None and rollout.index < self.eval_config.max_videos

    def _gather(self) -> None:
        """Take in replies until somebody is ready, and then from those who are quick."""
        until = None
        while True:
            if self._ready and until is None:
                until = time.monotonic() + PATIENCE * self._plan_seconds
            patience = None if until is None else max(0.0, until - time.monotonic())
            most = self.eval_config.policy_batch_size or len(self._running)
            replies = self.envs.wait(0.0 if len(self._ready) >= most else patience)
            if not replies:
                return
            for slot, reply in replies.items():
                self._take_in(slot, reply)
            self._fill()

    def _take_in(self, slot: int, reply: Message | WorkerError) -> None:
        episode = self._running[slot]
        if isinstance(reply, WorkerError):
            self._recover(slot, reply)
        elif not self.schedule.is_needed(episode.rollout):
            episode.discard()
            self.schedule.drop(self._running.pop(slot).rollout)
        elif not episode.is_playing:
            episode.begin(reply, self._film(episode.rollout))
            self._ready.append(slot)
        else:
            episode.record(reply)
            if episode.result.ended is None:
                self._ready.append(slot)
            else:
                self._finish(slot)

    def _film(self, rollout: Rollout) -> EpisodeFilm | None:
        if self.files is None or not self._is_filmed(rollout):
            return None
        place = (rollout.entry, rollout.index)
        return EpisodeFilm(self.files.video(*place), self.files.trace(*place), self.fps)

    def _plan(self) -> None:
        most = self.eval_config.policy_batch_size or len(self._ready)
        slots, self._ready = self._ready[:most], self._ready[most:]
        episodes = [self._running[slot] for slot in slots]
        seen = [e.look(blank_images=self.eval_config.blank_images) for e in episodes]
        started, prepared_s = time.perf_counter(), self.planner.preparation_s
        plans = self.planner.plan(seen, [episode.memory for episode in episodes])
        prepared_s = self.planner.preparation_s - prepared_s
        self._plan_seconds = time.perf_counter() - started - prepared_s
        limit = self.eval_config.max_seconds_per_episode
        for slot, episode, plan in zip(slots, episodes, plans, strict=True):
            chunk = episode.take_plan(plan, 1e3 * self._plan_seconds, max_seconds=limit)
            if chunk is None:
                self._finish(slot)
            else:
                self.envs.play(slot, chunk, film=episode.film is not None)
        self._fill()

    def _finish(self, slot: int) -> None:
        episode = self._running.pop(slot)
        self._num_finished += episode.result.is_finished
        self._num_errors += not episode.result.is_finished
        self.schedule.finish(episode.rollout, episode.result)
        self.on_finished(episode.rollout, episode.result)
        if self._num_errors >= MOST_ERRORS and not self._num_finished:
            raise SimulatorError(
                f"The first {self._num_errors} rollouts ended in an error of the simulator, the "
                f"last one with: {episode.result.reason} All of it is in "
                f"{episode.result.error_file or 'no file: there is no output folder'}."
            )

    def _recover(self, slot: int, error: WorkerError) -> None:
        """Put a new worker in the place of one that ended, and repeat the episode if that helps.

        An exception in Python would come again: such an episode ends as an error.
        """
        episode = self._running[slot]
        result = episode.result
        result.error_file = self._write_error(episode, error)
        is_final = error.has_thrown or result.retries >= self.eval_config.max_retries
        if is_final and error.while_starting:
            raise error
        self.envs.restart(slot)
        if is_final:
            episode.fail(str(error))
            self._finish(slot)
            return
        episode.discard()
        again = RunningEpisode(
            episode.rollout,
            episode.memory.instruction,
            retries=result.retries + 1,
            error_file=result.error_file,
        )
        self._start(slot, again)

    def _write_error(self, episode: RunningEpisode, error: WorkerError) -> str | None:
        if self.files is None:
            return None
        rollout = episode.rollout
        path = self.files.error(rollout.entry, rollout.seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"attempt {episode.result.retries + 1}: {error}\n\n{error.words}\n")
        return str(path)
