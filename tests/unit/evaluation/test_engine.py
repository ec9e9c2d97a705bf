# SPDX-License-Identifier: Apache-2.0
"""Rollouts on simulators that throw, die and hang, and policies that are slow."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.unit.environments.toy import ToyEnvConfig
from vlakit.errors import SimulatorError
from vlakit.evaluation.config import EvalConfig
from vlakit.evaluation.planning import EpisodeMemory
from vlakit.evaluation.results import EvaluationResult
from vlakit.evaluation.rollout import evaluate
from vlakit.features import OBS_STATE

QUIET = Console(quiet=True)


class Pusher:
    """Pushes by an amount that depends on all it saw in the episode, and on its noise."""

    preparation_s = 0.0

    def plan(
        self, observations: Sequence[Mapping[str, Any]], memories: Sequence[EpisodeMemory]
    ) -> list[np.ndarray]:
        chunks = []
        for observation, memory in zip(observations, memories, strict=True):
            seen = memory.history.setdefault("seen", [])
            seen.append(float(observation[OBS_STATE][1]))
            noise = torch.rand(1, generator=memory.generator).item()
            chunks.append(np.full((4, 3), 0.15 + 0.1 * noise + 0.1 * np.sin(sum(seen)), np.float32))
        return chunks


def run(
    task: str, output_dir: Path | None, n_episodes: int = 3, planner: Any = None, **settings: Any
) -> EvaluationResult:
    once_dir = str(output_dir.parent) if output_dir is not None else ""
    env = ToyEnvConfig(task=task, goal=2.0, once_dir=once_dir)
    settings = {"batch_size": 2, "max_videos": 0} | settings
    config = EvalConfig(n_episodes=n_episodes, **settings)
    return evaluate(planner or Pusher(), env, config, seed=10, output_dir=output_dir, console=QUIET)


def outcomes(result: EvaluationResult, task: str) -> list[tuple[int, float]]:
    (found,) = (entry for entry in result.tasks if entry.entry.name == task)
    return [(episode.num_steps, episode.sum_reward) for episode in found.episodes]


def test_an_exception_of_the_simulator_is_an_error_and_the_run_goes_on(tmp_path: Path) -> None:
    result = run("crash_odd,push", tmp_path / "out", n_episodes=4, max_videos=4)
    crashing, push = result.tasks
    assert [episode.ended for episode in crashing.episodes] == [
        "success",
        "error",
        "success",
        "error",
    ]
    assert all(episode.ended == "success" for episode in push.episodes)
    spoilt = crashing.episodes[1]
    assert spoilt.reason is not None
    assert "the point fell off the table" in spoilt.reason
    assert spoilt.error_file == str(tmp_path / "out/errors/crash_odd_0/seed_11.txt")
    text = Path(spoilt.error_file).read_text()
    assert "Traceback (most recent call last)" in text
    assert "toy.py" in text
    assert spoilt.retries == 0  # it would throw again
    assert spoilt.video_path is None
    assert len(list((tmp_path / "out/videos/crash_odd_0").iterdir())) == 2
    # An error says nothing about the policy: the rate is over what was finished.
    info = result.to_json()
    assert (info["overall"]["n_episodes"], info["overall"]["n_errors"]) == (6, 2)
    assert (info["per_task"][0]["n_episodes"], info["per_task"][0]["n_errors"]) == (2, 2)
    assert info["per_task"][0]["pc_success"] == 100
    assert info["per_task"][0]["seeds"] == [10, 12]
    assert len(info["per_task"][0]["episodes"]) == 4
    json.dumps(info, allow_nan=False)


@pytest.mark.parametrize("task", ["exit_once", "hang_once"])
def test_a_worker_that_dies_or_hangs_is_replaced_and_the_episode_repeated(
    task: str, tmp_path: Path
) -> None:
    reference = run("push", None, n_episodes=2)
    timeout = 60.0 if task == "exit_once" else 4.0
    result = run(task, tmp_path / "out", n_episodes=2, worker_timeout=timeout)
    assert outcomes(result, task) == outcomes(reference, "push")
    for episode in result.episodes:
        assert (episode.retries, episode.ended) == (1, "success")
        assert episode.error_file is not None
        words = "ended with code 7" if task == "exit_once" else "gave no reply for 4 s"
        assert words in Path(episode.error_file).read_text()
    info = result.to_json()["overall"]
    assert (info["retries"], info["n_errors"], info["n_episodes"]) == (2, 0, 2)


def test_a_worker_that_always_dies_is_an_error_after_some_retries(tmp_path: Path) -> None:
    result = run("exit,push", tmp_path / "out", n_episodes=2, max_retries=1)
    dying, push = result.tasks
    assert [(episode.ended, episode.retries) for episode in dying.episodes] == [("error", 1)] * 2
    assert dying.episodes[0].error_file is not None
    text = Path(dying.episodes[0].error_file).read_text()
    assert text.count("last words of the toy") >= 2
    assert "attempt 2" in text
    assert push.num_successes == 2
    info = result.to_json()
    assert info["per_task"][0]["pc_success"] is None
    assert info["per_task"][0]["pc_success_interval_95"] == [0, 100]
    json.dumps(info, allow_nan=False)


def test_a_worker_that_is_killed_from_outside_is_replaced(tmp_path: Path) -> None:
    class Killer(Pusher):
        """Kills the worker processes of this one, once."""

        has_killed = False

        def plan(self, observations: Any, memories: Any) -> list[np.ndarray]:
            if not self.has_killed:
                self.has_killed = True
                children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
                for child in children.split():
                    command = Path(f"/proc/{child}/cmdline").read_text()
                    if "vlakit.environments.worker" in command:
                        os.kill(int(child), signal.SIGKILL)
            return super().plan(observations, memories)

    result = run("push", tmp_path / "out", planner=Killer())
    assert outcomes(result, "push") == outcomes(run("push", None), "push")
    assert sum(episode.retries for episode in result.episodes) == 2


def test_a_run_in_which_nothing_works_stops_early(tmp_path: Path) -> None:
    with pytest.raises(SimulatorError, match=r"first 10 rollouts.*fell off the table.*seed_"):
        run("crash", tmp_path / "out", n_episodes=40)
    with pytest.raises(SimulatorError, match=r"All 2 rollouts.*fell off the table"):
        run("crash", tmp_path / "out", n_episodes=2)


@pytest.mark.parametrize("task", ["missing", "refuse"])
def test_a_simulator_that_cannot_be_built_ends_the_run(task: str, tmp_path: Path) -> None:
    with pytest.raises(SimulatorError, match=r"simulator_of_dreams|the toy box is closed"):
        run(f"{task},push", tmp_path / "out")


def test_a_policy_that_takes_too_long_ends_the_episode() -> None:
    class Slow(Pusher):
        def plan(self, observations: Any, memories: Any) -> list[np.ndarray]:
            time.sleep(0.05)
            return super().plan(observations, memories)

    settings = {"max_seconds_per_episode": 0.12, "use_async_envs": False}
    result = run("fail", None, planner=Slow(), **settings)
    for episode in result.episodes:
        assert (episode.ended, episode.success) == ("too_slow", False)
        assert episode.num_plans in (2, 3)
        assert episode.num_steps == 4 * (episode.num_plans - 1)
        assert episode.reason is not None
        assert "s of planning" in episode.reason
    assert result.to_json()["overall"]["n_episodes"] == 3  # a failure of the policy, no error
    relaxed = run("fail", None, planner=Slow(), max_seconds_per_episode=60.0)
    assert all(episode.ended == "time_limit" for episode in relaxed.episodes)


def test_what_planning_prepares_once_is_not_planning_time() -> None:
    class Recording(Pusher):
        """Slow at its first call, as a policy that records a graph."""

        def plan(self, observations: Any, memories: Any) -> list[np.ndarray]:
            if not self.preparation_s:
                time.sleep(0.3)
                self.preparation_s = 0.3
            return super().plan(observations, memories)

    result = run("push", None, planner=Recording(), max_seconds_per_episode=0.25)
    assert not [episode for episode in result.episodes if episode.ended == "too_slow"]
    assert max(value for episode in result.episodes for value in episode.plan_ms) < 250
    assert result.to_json()["overall"]["preparation_s"] == 0.3


def test_a_slow_policy_gets_full_batches() -> None:
    class Counting(Pusher):
        def __init__(self) -> None:
            self.sizes: list[int] = []

        def plan(self, observations: Any, memories: Any) -> list[np.ndarray]:
            self.sizes.append(len(observations))
            time.sleep(0.2)
            return super().plan(observations, memories)

    planner = Counting()
    run("fail", None, n_episodes=4, planner=planner, batch_size=4)
    assert sum(planner.sizes) == 20  # 20 steps in chunks of 4, four times
    assert len(planner.sizes) <= 12  # workers do not start at the same moment
    assert max(planner.sizes) == 4
    single = Counting()
    run("push", None, n_episodes=2, planner=single, policy_batch_size=1)
    assert set(single.sizes) == {1}


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_a_decided_task_is_not_rolled_out_further(batch_size: int, tmp_path: Path) -> None:
    result = run(
        "push,fail",
        tmp_path / "out",
        n_episodes=60,
        batch_size=batch_size,
        stop_when_decided=0.25,
        use_async_envs=False,
    )
    # Of n out of n, the interval is narrower than 0.25 from n = 12 on.
    assert [len(task.episodes) for task in result.tasks] == [12, 12]
    lines = (tmp_path / "out/episodes.jsonl").read_text().splitlines()
    keys = [(line["task"], line["seed"]) for line in map(json.loads, lines)]
    assert keys == [(task, 10 + index) for task in ("push", "fail") for index in range(12)]


def test_filmed_rollouts_have_their_actions(tmp_path: Path) -> None:
    result = run("push", tmp_path / "out", max_videos=2)
    first, _, last = result.episodes
    assert last.trace_path is None
    assert first.trace_path == str(tmp_path / "out/traces/push_0/eval_episode_0.npz")
    with np.load(first.trace_path) as trace:
        actions = trace["actions"]
    assert actions.shape == (first.num_steps, 3)
    assert actions.dtype == np.float32
    start = np.random.default_rng(10).uniform(-1, 1, 3)[0]
    assert first.sum_reward == pytest.approx((start + np.cumsum(actions[:, 0])).sum(), abs=1e-5)
