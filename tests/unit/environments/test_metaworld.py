# SPDX-License-Identifier: Apache-2.0
"""Meta-World itself, in this process: goals follow seeds, whatever the instance did before."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from vlakit.environments.config import MetaworldEnvConfig
from vlakit.environments.metaworld import MetaworldEnvironment
from vlakit.environments.metaworld_tasks import INSTRUCTIONS, TASK_GROUPS
from vlakit.features import OBS_IMAGE, OBS_STATE

CONFIG = MetaworldEnvConfig(observation_height=48, observation_width=48, render_size=64)
Rollout = list[np.ndarray]


@pytest.fixture
def make() -> Iterator:
    made: list[MetaworldEnvironment] = []

    def _make(task: str, config: MetaworldEnvConfig = CONFIG) -> MetaworldEnvironment:
        made.append(config.make(task))
        return made[-1]

    yield _make
    for env in made:
        env.close()


def roll_out(env: MetaworldEnvironment, seed: int, steps: int) -> Rollout:
    env.reset(seed)
    seen = [*env.observe().values()]
    for _ in range(steps):
        env.step(env.expert_action())
        seen.append(env._raw.copy())
    return [*seen, *env.observe().values()]


def assert_equal(first: Rollout, second: Rollout) -> None:
    assert len(first) == len(second)
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("task", ["drawer-open-v3", "pick-place-v3", "window-close-v3"])
def test_a_used_instance_replays_a_seed_to_the_bit(task: str, make) -> None:
    fresh = {seed: roll_out(make(task), seed, 40) for seed in (0, 1)}
    used = make(task)
    for seed in (1, 0, 0, 1):
        assert_equal(roll_out(used, seed, 40), fresh[seed])
    assert not np.array_equal(fresh[0][-2], fresh[1][-2])


def test_every_task_resets_alike_on_a_used_and_on_a_fresh_instance(make) -> None:
    for task in INSTRUCTIONS:
        used, fresh = (CONFIG.make(task) for _ in range(2))
        for seed in (2, 1):
            used.reset(seed)
            used.step(used.expert_action())
        used.reset(2)
        fresh.reset(2)
        np.testing.assert_array_equal(used._raw, fresh._raw, err_msg=task)
        for _ in range(3):
            used.step(used.expert_action())
            fresh.step(fresh.expert_action())
        np.testing.assert_array_equal(used._raw, fresh._raw, err_msg=task)
        used.close()
        fresh.close()


def test_seeds_give_different_goals(make) -> None:
    env = make("drawer-open-v3")
    goals = []
    for seed in range(4):
        env.reset(seed)
        goals.append(tuple(env._raw[-3:]))
    assert len(set(goals)) == 4


def test_looking_does_not_change_the_world(make) -> None:
    watched, unwatched = make("drawer-open-v3"), make("drawer-open-v3")
    watched.reset(0)
    unwatched.reset(0)
    for _ in range(20):
        watched.observe()
        watched.render()
        watched.step(watched.expert_action())
        unwatched.step(unwatched.expert_action())
    np.testing.assert_array_equal(watched._raw, unwatched._raw)


def test_observations_have_the_promised_features(make) -> None:
    env = make("drawer-open-v3")
    env.reset(0)
    seen = env.observe()
    assert seen[OBS_IMAGE].shape == tuple(CONFIG.features()[OBS_IMAGE]["shape"])
    assert seen[OBS_IMAGE].dtype == np.uint8
    assert seen[OBS_STATE].dtype == np.float32
    np.testing.assert_allclose(seen[OBS_STATE], env._raw[:4], rtol=1e-6)
    assert env.render().shape == (64, 64, 3)


def test_the_picture_is_upright(make) -> None:
    env = make("drawer-open-v3")
    env.reset(0)
    picture = env.render().astype(int)
    sky, table = picture[2, 32], picture[-8, 40]
    assert np.ptp(sky) < 15  # grey wall above
    assert table[0] > table[2] + 20  # brown wood below


def test_the_crop_is_a_part_of_the_whole_picture(make) -> None:
    whole = make("drawer-open-v3", MetaworldEnvConfig(observation_height=64, observation_width=64))
    crop = (0.25, 0.25, 1.0, 1.0)
    part = make(
        "drawer-open-v3",
        MetaworldEnvConfig(observation_height=48, observation_width=48, crop=crop),
    )
    whole.reset(0)
    part.reset(0)
    np.testing.assert_array_equal(part.observe()[OBS_IMAGE], whole.observe()[OBS_IMAGE][16:, 16:])


def test_actions_outside_the_box_are_clipped_and_counted(make) -> None:
    env, other = make("drawer-open-v3"), make("drawer-open-v3")
    env.reset(0)
    other.reset(0)
    env.step(np.array([5.0, 0.0, 0.0, -3.0]))
    env.step(np.array([0.1, 0.0, 0.0, 0.0]))
    other.step(np.array([1.0, 0.0, 0.0, -1.0]))
    other.step(np.array([0.1, 0.0, 0.0, 0.0]))
    assert (env.num_clipped, other.num_clipped) == (1, 0)
    np.testing.assert_array_equal(env._raw, other._raw)


def test_the_expert_opens_the_drawer_and_that_ends_the_episode(make) -> None:
    env = make("drawer-open-v3")
    env.reset(0)
    results = []
    while not results or not results[-1].terminated:
        results.append(env.step(env.expert_action()))
        assert len(results) < 150
    assert results[-1].success
    assert not any(result.success for result in results[:-1])


def test_mt10_is_meta_worlds_own(make) -> None:
    make("reach-v3")  # chooses what draws, before the simulator is imported
    from metaworld.env_dict import MT10_V3

    assert TASK_GROUPS["mt10"] == tuple(MT10_V3)
