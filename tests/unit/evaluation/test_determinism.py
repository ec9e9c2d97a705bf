# SPDX-License-Identifier: Apache-2.0
"""Outcomes of a policy that samples: they belong to (policy, task, seed), whatever runs beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from rich.console import Console
from torch import Tensor

from tests.unit.environments.toy import ToyEnvConfig
from vlakit.evaluation.config import EvalConfig
from vlakit.evaluation.planner import PolicyPlanner
from vlakit.evaluation.results import EvaluationResult
from vlakit.evaluation.rollout import evaluate
from vlakit.features import OBS_STATE, TASK
from vlakit.policies.base import Policy

NUM_TOKENS = 7


class Sampler:
    """Draws one of seven actions per step, as a policy with temperature draws tokens.

    The odds depend on state and words; the draws come from each row's own generator. One chunk in
    six spells nothing.
    """

    config = SimpleNamespace(n_action_steps=3)
    device = torch.device("cpu")
    recording_s = 0.0

    def __init__(self) -> None:
        self.batch_sizes: set[int] = set()

    def make_noise(self, batch_size: int, generators: Sequence[torch.Generator]) -> Tensor:
        return torch.stack([torch.rand(5, generator=generator) for generator in generators])

    def try_action_chunk(
        self, batch: Mapping[str, Any], noise: Tensor | None = None
    ) -> tuple[Tensor, dict[int, str]]:
        assert noise is not None
        self.batch_sizes.add(len(noise))
        state, words = batch[OBS_STATE], batch[TASK]
        tilt = torch.tensor([float(sum(map(ord, text)) % 5) for text in words])[:, None]
        odds = (0.5 + 0.4 * torch.sin(3 * state[:, :1] + tilt)).clamp(0.05, 0.95)
        tokens = ((noise[:, :4] + odds) * NUM_TOKENS / 2).floor()
        actions = (tokens / NUM_TOKENS - 0.2)[..., None].repeat(1, 1, 3)
        failures = {row: "no chunk" for row in range(len(noise)) if noise[row, 4] < 1 / 6}
        actions[list(failures)] = torch.nan
        return actions, failures


def roll_out(
    batch_size: int, *, use_processes: bool = False, most: int = 0, output_dir: Path | None = None
) -> tuple[EvaluationResult, Sampler]:
    policy = Sampler()
    planner = PolicyPlanner(cast(Policy, policy), lambda raw: raw, lambda actions: actions)
    config = EvalConfig(
        n_episodes=12,
        batch_size=batch_size,
        policy_batch_size=most,
        use_async_envs=use_processes,
        max_videos=0,
    )
    env = ToyEnvConfig(task="push,pull,fail", goal=1.2)
    result = evaluate(planner, env, config, seed=3, console=Console(quiet=True))
    return result, policy


def test_outcomes_are_equal_for_any_number_of_slots_and_any_batch() -> None:
    alone, _ = roll_out(1)
    assert {episode.ended for episode in alone.episodes} >= {"success", "time_limit"}
    assert sum(episode.decode_failures for episode in alone.episodes) > 0
    assert "undecodable" in {episode.ended for episode in alone.episodes}
    for batch_size, use_processes, most in (
        (5, False, 0),
        (36, False, 0),
        (4, True, 0),
        (8, False, 3),
    ):
        result, policy = roll_out(batch_size, use_processes=use_processes, most=most)
        assert result.episodes == alone.episodes
        assert max(policy.batch_sizes) > 1
        if most:
            assert max(policy.batch_sizes) == most


def test_two_seeds_and_two_tasks_give_other_episodes() -> None:
    result, _ = roll_out(6)
    rewards = [episode.sum_reward for episode in result.episodes if episode.num_steps]
    assert len(set(rewards)) > 0.8 * len(rewards)


def test_a_row_that_spells_nothing_does_not_reach_the_robot() -> None:
    class Silent(Sampler):
        def try_action_chunk(self, batch: Any, noise: Any = None) -> tuple[Tensor, dict[int, str]]:
            actions, _ = super().try_action_chunk(batch, noise)
            actions[0] = torch.nan
            return actions, {0: "three of four coefficients"}

    planner = PolicyPlanner(cast(Policy, Silent()), lambda raw: raw, lambda actions: actions)
    config = EvalConfig(n_episodes=1, use_async_envs=False, max_videos=0)
    result = evaluate(
        planner, ToyEnvConfig(task="push"), config, seed=0, console=Console(quiet=True)
    )
    (episode,) = result.episodes
    assert (episode.ended, episode.reason) == ("undecodable", "three of four coefficients")
    assert episode.num_steps == 0


@pytest.mark.parametrize("name", ["policy_batch_size", "max_videos", "max_retries"])
def test_numbers_below_zero_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"--eval.{name}=-1 must be 0 or more"):
        EvalConfig(**{name: -1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("worker_timeout", 0.0),
        ("max_seconds_per_episode", -1.0),
        ("stop_when_decided", 0.0),
        ("stop_when_decided", 1.0),
    ],
)
def test_limits_without_sense_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"--eval.{name}={value} must be"):
        EvalConfig(**{name: value})
