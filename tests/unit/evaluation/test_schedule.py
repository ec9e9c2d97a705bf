# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random

import pytest

from vlakit.environments.base import TaskEntry
from vlakit.evaluation.results import EpisodeResult
from vlakit.evaluation.schedule import Rollout, Schedule, Share
from vlakit.evaluation.success_rate import wilson_interval

PUSH, PULL = TaskEntry("a", 0, "push"), TaskEntry("a", 1, "pull")


def result(seed: int, *, success: bool = True, error: bool = False) -> EpisodeResult:
    return EpisodeResult(
        seed, success=success and not error, ended="error" if error else "time_limit"
    )


def take_all(schedule: Schedule, task: str = "") -> list[Rollout]:
    taken = []
    while (rollout := schedule.take(task)) is not None:
        taken.append(rollout)
    return taken


def test_a_slot_stays_on_its_task_and_then_helps_with_the_other() -> None:
    schedule = Schedule([PUSH, PULL], first_seed=5, n_episodes=2)
    taken = [(rollout.entry.name, rollout.seed) for rollout in take_all(schedule, "pull")]
    assert taken == [("pull", 5), ("pull", 6), ("push", 5), ("push", 6)]


def test_new_slots_spread_over_the_tasks() -> None:
    schedule = Schedule([PUSH, PULL], first_seed=0, n_episodes=10)
    names = [schedule.take("").entry.name for _ in range(4)]  # type: ignore[union-attr]
    assert sorted(names) == ["pull", "pull", "push", "push"]


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_processes_share_all_rollouts_evenly(world_size: int) -> None:
    shares = [
        take_all(Schedule([PUSH, PULL], first_seed=0, n_episodes=11, share=Share(rank, world_size)))
        for rank in range(world_size)
    ]
    every = [rollout for share in shares for rollout in share]
    assert len(every) == len(set(every)) == 22
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_what_is_left_is_shared_evenly_too() -> None:
    done = {(PUSH, seed): result(seed) for seed in range(0, 40, 2)}  # all of one of two processes
    shares = [
        take_all(Schedule([PUSH], first_seed=0, n_episodes=40, done=done, share=Share(rank, 2)))
        for rank in (0, 1)
    ]
    assert [len(share) for share in shares] == [10, 10]
    assert sorted(rollout.seed for share in shares for rollout in share) == list(range(1, 40, 2))


def test_what_was_done_before_is_not_done_again() -> None:
    done = {(PUSH, 3): result(3), (PUSH, 99): result(99), (PULL, 1): result(1)}
    schedule = Schedule([PUSH], first_seed=2, n_episodes=3, done=done)
    assert [rollout.seed for rollout in take_all(schedule)] == [2, 4]
    assert [episode.seed for episode in schedule.outcomes(PUSH)] == [3]


def shortest_decided(outcomes: list[EpisodeResult], width: float) -> int:
    """Count by hand: the first place where the interval of everything up to it is narrow."""
    for count in range(1, len(outcomes) + 1):
        finished = [episode for episode in outcomes[:count] if episode.is_finished]
        low, high = wilson_interval(sum(e.success for e in finished), len(finished))
        if high - low < width:
            return count
    return len(outcomes)


def test_when_a_task_is_decided_does_not_depend_on_the_order_in_which_rollouts_end() -> None:
    generator = random.Random(0)
    seen = set()
    for _ in range(60):
        rate, width = generator.choice([0, 0.5, 0.97, 1]), generator.choice([0.1, 0.2, 0.3])
        outcomes = [
            result(seed, success=generator.random() < rate, error=generator.random() < 0.1)
            for seed in range(120)
        ]
        expected = shortest_decided(outcomes, width)
        seen.add(expected == len(outcomes))
        for num_slots in (1, 3, 16):
            schedule = Schedule([PUSH], first_seed=0, n_episodes=120, stop_width=width)
            running: list[Rollout] = []
            while True:
                while len(running) < num_slots and (new := schedule.take("push")) is not None:
                    running.append(new)
                if not running:
                    break
                over = running.pop(generator.randrange(len(running)))
                schedule.finish(over, outcomes[over.seed])
            kept = schedule.outcomes(PUSH)
            assert kept == outcomes[:expected]
            assert schedule.num_wanted(PUSH) == expected
            assert schedule.is_needed(Rollout(PUSH, expected - 1, expected - 1))
    assert seen == {True, False}  # both kinds were tried


def test_a_decided_task_hands_out_nothing_more() -> None:
    schedule = Schedule([PUSH], first_seed=0, n_episodes=100, stop_width=0.3)
    late = [schedule.take("push") for _ in range(9)][-1]
    assert late is not None
    for seed in range(8):
        schedule.add(PUSH, seed, result(seed))  # 8 of 8: 68 to 100 %
    assert schedule.take("push") is not None
    schedule.add(PUSH, 8, result(8))  # 9 of 9: 70 to 100 %
    assert schedule.take("push") is None
    assert schedule.is_needed(late)
    assert not schedule.is_needed(Rollout(PUSH, 9, 9))
