# SPDX-License-Identifier: Apache-2.0
"""Rollouts of a planner that remembers everything it saw, on a simulator of three numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from rich.console import Console

from tests.unit.environments.toy import ToyEnvConfig
from vlakit.environments.messages import Message
from vlakit.environments.session import EnvironmentSession
from vlakit.errors import ActionDecodeError, SimulatorError
from vlakit.evaluation.config import EvalConfig
from vlakit.evaluation.planning import EpisodeMemory, Undecodable
from vlakit.evaluation.results import EpisodeResult, EvaluationResult
from vlakit.evaluation.rollout import evaluate
from vlakit.features import OBS_IMAGE, OBS_STATE

QUIET = Console(quiet=True)


class HistoryPlanner:
    """Its actions depend on all states of the episode so far and on the episode's own noise."""

    preparation_s = 0.0

    def __init__(self, chunk: int = 3) -> None:
        self.chunk = chunk
        self.instructions: list[str] = []
        self.images: list[np.ndarray] = []
        self.batch_sizes: list[int] = []

    def plan(
        self, observations: Sequence[Mapping[str, Any]], memories: Sequence[EpisodeMemory]
    ) -> list[np.ndarray]:
        self.batch_sizes.append(len(observations))
        chunks = []
        for observation, memory in zip(observations, memories, strict=True):
            past = memory.history.setdefault("states", [])
            past.append(observation[OBS_STATE].astype(np.float64))
            self.instructions.append(memory.instruction)
            self.images.append(observation[OBS_IMAGE])
            noise = torch.randn(self.chunk, 3, generator=memory.generator).numpy()
            chunks.append(0.3 * noise + np.sin(7 * sum(past)) / len(past) + 0.1)
        return chunks


def run(
    config: EvalConfig, task: str = "push", output_dir: Path | None = None, **env: Any
) -> tuple[EvaluationResult, HistoryPlanner]:
    planner = HistoryPlanner()
    env_config = ToyEnvConfig(task=task, goal=1.0, **env)
    result = evaluate(planner, env_config, config, seed=7, output_dir=output_dir, console=QUIET)
    return result, planner


def test_outcomes_do_not_depend_on_how_many_environments_run_at_once() -> None:
    alone, _ = run(EvalConfig(n_episodes=11, batch_size=1, use_async_envs=False))
    assert [episode.seed for episode in alone.episodes] == list(range(7, 18))
    assert 0 < sum(episode.success for episode in alone.episodes) < 11
    for batch_size, use_processes in ((2, True), (3, False), (5, True), (11, False)):
        together, planner = run(
            EvalConfig(n_episodes=11, batch_size=batch_size, use_async_envs=use_processes)
        )
        assert together.episodes == alone.episodes
        assert max(planner.batch_sizes) <= batch_size
        if not use_processes:  # those do not answer whenever they like
            assert max(planner.batch_sizes) == batch_size


def test_an_episode_is_rendered_once_per_plan() -> None:
    session = EnvironmentSession(ToyEnvConfig(), "fail")
    session.answer(Message({"command": "reset", "seed": 0, "film": False}))
    for _ in range(2):
        session.answer(Message({"command": "play", "film": False}, {"actions": np.zeros((8, 3))}))
    assert session._env.num_pictures == 3


def test_every_step_is_counted_and_the_limit_is_kept() -> None:
    result, _ = run(EvalConfig(n_episodes=2, batch_size=2, use_async_envs=False), task="fail")
    assert [episode.num_steps for episode in result.episodes] == [20, 20]
    assert result.success_rate == 0


def test_controls_change_what_the_policy_sees_and_hears() -> None:
    config = EvalConfig(n_episodes=1, use_async_envs=False, blank_images=True, instruction="sing")
    _, planner = run(config)
    assert set(planner.instructions) == {"sing"}
    assert all((image == 128).all() for image in planner.images)
    _, planner = run(EvalConfig(n_episodes=1, use_async_envs=False))
    assert set(planner.instructions) == {"push the point"}
    assert not all((image == 128).all() for image in planner.images)


def test_words_can_be_given_per_task() -> None:
    config = EvalConfig(n_episodes=1, use_async_envs=False, instructions={"pull": "push the point"})
    result, _ = run(config, task="push,pull")
    assert [task.instruction for task in result.tasks] == ["push the point", "push the point"]


def test_videos_play_and_have_every_step(tmp_path: Path) -> None:
    config = EvalConfig(n_episodes=3, batch_size=2, use_async_envs=False, max_videos=2)
    result, _ = run(config, output_dir=tmp_path, size=17)
    paths = [episode.video_path for episode in result.episodes]
    assert paths[2] is None
    assert paths[:2] == [
        str(tmp_path / f"videos/push_0/eval_episode_{index}.mp4") for index in (0, 1)
    ]
    for episode in result.episodes[:2]:
        with av.open(episode.video_path) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
            assert (stream.height, stream.width) == (16, 16)
            assert stream.average_rate == 10
            assert len(list(container.decode(stream))) == episode.num_steps + 1


def test_a_rollout_that_breaks_leaves_no_open_file(tmp_path: Path) -> None:
    config = EvalConfig(n_episodes=2, batch_size=1)
    with pytest.raises(SimulatorError, match="the point fell off the table"):
        run(config, task="crash", output_dir=tmp_path)


def test_actions_that_are_no_numbers_are_refused() -> None:
    class Broken(HistoryPlanner):
        def plan(self, observations: Any, memories: Any) -> list[np.ndarray]:
            chunk = np.zeros((3, 3))
            chunk[1, 2] = np.nan if memories[0].num_plans else 0.0
            return [chunk for _ in memories]

    with pytest.raises(ActionDecodeError, match=r"at step 4 \(push, seed 7, plan 2\)"):
        evaluate(
            Broken(),
            ToyEnvConfig(task="push"),
            EvalConfig(n_episodes=1, use_async_envs=False),
            seed=7,
            console=QUIET,
        )


class NeverDecodes(HistoryPlanner):
    """Gives a chunk at the plans named, tokens that spell none at the others."""

    def __init__(self, decodes_at: Sequence[int]) -> None:
        super().__init__()
        self.decodes_at = decodes_at

    def plan(self, observations: Any, memories: Any) -> list[Any]:
        chunks = super().plan(observations, memories)
        return [
            np.tile(np.array([0.05, 0.0, -0.1]) * (memory.num_plans + 1), (3, 1))
            if memory.num_plans in self.decodes_at
            else Undecodable("7 coefficients, expected 9", 3)
            for _, memory in zip(chunks, memories, strict=True)
        ]


def undecodable(decodes_at: Sequence[int], output_dir: Path | None = None) -> EvaluationResult:
    config = EvalConfig(n_episodes=2, batch_size=2, use_async_envs=False)
    env = ToyEnvConfig(task="fail", episode_length=12)
    planner = NeverDecodes(decodes_at)
    return evaluate(planner, env, config, seed=7, output_dir=output_dir, console=QUIET)


def test_a_plan_that_cannot_be_decoded_holds_the_last_action_and_is_counted() -> None:
    held = undecodable([0, 2])
    for episode in held.episodes:
        assert (episode.decode_failures, episode.num_plans, episode.num_steps) == (2, 4, 12)
        assert episode.ended == "time_limit"
        start = np.random.default_rng(episode.seed).uniform(-1, 1, 3)[0]
        # Two plans of 0.05 (the second one held), then two of 0.15 (the second one held).
        where = start + np.cumsum([0.05] * 6 + [0.15] * 6)
        assert episode.sum_reward == pytest.approx(where.sum(), abs=1e-6)


def test_without_a_first_action_there_is_nothing_to_hold(tmp_path: Path) -> None:
    result = undecodable([1], tmp_path)
    for episode in result.episodes:
        assert (episode.ended, episode.num_steps, episode.success) == ("undecodable", 0, False)
        assert episode.reason == "7 coefficients, expected 9"
    info = result.to_json()["overall"]
    assert (info["n_episodes"], info["decode_failures"], info["pc_success"]) == (2, 2, 0)
    json.dumps(info, allow_nan=False)


def test_every_rollout_is_a_line_of_the_log(tmp_path: Path) -> None:
    config = EvalConfig(n_episodes=3, batch_size=2, use_async_envs=False, max_videos=1)
    result, _ = run(config, task="push,fail", output_dir=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "episodes.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    by_key = {(line["task"], line["seed"]): line for line in lines}
    for task in result.tasks:
        for episode in task.episodes:
            line = by_key[task.entry.name, episode.seed]
            assert line["task_group"] == task.entry.group
            assert line["instruction"] == f"{task.entry.name} the point"
            assert EpisodeResult.from_json(line) == episode
            assert len(line["plan_ms"]) == line["num_plans"] == episode.num_plans
            assert 0 < line["plan_ms_p50"] <= line["plan_ms_p95"] <= max(line["plan_ms"])
            endings = {(True, "success"), (False, "time_limit")}
            assert (line["success"], line["ended"]) in endings


def test_eval_info_has_lerobots_keys_and_ours(tmp_path: Path) -> None:
    result, _ = run(EvalConfig(n_episodes=4, use_async_envs=False), task="push,fail")
    path = result.save(tmp_path / "new")
    info = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert [entry["task_group"] for entry in info["per_task"]] == ["push", "fail"]
    metrics = info["per_task"][0]["metrics"]
    assert list(metrics) == [
        "sum_rewards",
        "max_rewards",
        "successes",
        "video_paths",
        "predicted_video_paths",
    ]
    assert info["per_task"][0]["seeds"] == [7, 8, 9, 10]
    keys = {
        "avg_sum_reward",
        "avg_max_reward",
        "pc_success",
        "n_episodes",
        "video_paths",
        "predicted_video_paths",
    }
    assert keys <= set(info["per_group"]["push"])
    assert keys | {"eval_s", "eval_ep_s"} <= set(info["overall"])
    assert info["overall"]["n_episodes"] == 8
    low, high = info["per_group"]["fail"]["pc_success_interval_95"]
    assert low == 0
    assert high == pytest.approx(48.99, abs=0.01)
    assert not list((tmp_path / "new").glob(".*"))
