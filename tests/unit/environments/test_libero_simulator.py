# SPDX-License-Identifier: Apache-2.0
"""LIBERO itself, in this process: episodes follow seeds, whatever the instance did before."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures_root import LIBERO_ASSETS
from tests.libero import made, needs_libero, small_libero
from vlakit.environments.libero_tasks import SUITES
from vlakit.errors import SimulatorError
from vlakit.features import OBS_STATE

pytestmark = [pytest.mark.slow, needs_libero, pytest.mark.filterwarnings("ignore")]


def roll_out(env, seed: int, steps: int = 6) -> list[np.ndarray]:
    env.reset(seed)
    actions = np.random.default_rng(seed).uniform(-1, 1, (steps, 7))
    seen = list(env.observe().values())
    for action in actions:
        env.step(action)
        seen.append(env._sim.sim.get_state().flatten())
    return [*seen, *env.observe().values()]


def assert_equal(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(ours, theirs)


# The first of them begins with an open drawer: LIBERO would draw more numbers at every reset.
@pytest.mark.parametrize(("suite", "task_id"), [("libero_spatial", 4), ("libero_object", 0)])
def test_a_used_instance_replays_a_seed_to_the_bit(suite: str, task_id: int) -> None:
    fresh = {}
    for seed in (1, 5):
        np.random.seed(seed + 100)  # the global generator must not matter
        env = made(small_libero(suite, task_id))
        fresh[seed] = roll_out(env, seed)
        env.close()
    used = made(small_libero(suite, task_id))
    for seed in (5, 1, 1, 5):
        assert_equal(roll_out(used, seed), fresh[seed])
    used.close()
    assert not np.array_equal(fresh[1][3], fresh[5][3])


def test_the_global_generator_is_left_alone() -> None:
    env = made(small_libero("libero_object"))
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    env.reset(0)
    env.close()
    assert np.random.random() == expected


def test_a_seed_chooses_one_of_the_stored_starts_or_draws_places() -> None:
    env = made(small_libero("libero_object"))
    starts = []
    for seed in (1000, 1049, 1050):
        env.reset(seed)
        starts.append(env.init_state)
    assert starts == [0, 49, 0]
    env.close()
    free = made(small_libero("libero_object", init_states=False))
    free.reset(1000)
    assert free.init_state is None
    assert not np.array_equal(free._sim.sim.get_state().qpos, env._starts[0][1:])
    free.close()


def test_looking_does_not_change_the_world() -> None:
    states = []
    for looks in (True, False):
        env = made(small_libero("libero_object"))
        env.reset(0)
        for _ in range(4):
            if looks:
                env.observe()
                env.render()
            env.step(np.full(7, 0.3))
        states.append(env._sim.sim.get_state().flatten())
        env.close()
    np.testing.assert_array_equal(*states)


def test_the_settings_decide_what_is_seen() -> None:
    config = small_libero(
        "libero_object",
        camera_name="robot0_eye_in_hand_image,frontview_image",
        obs_type="pixels",
        observation_height=24,
        fast_render=True,
    )
    env = made(config)
    env.reset(0)
    seen = env.observe()
    assert list(seen) == ["observation.images.image2", "observation.images.frontview"]
    assert {picture.shape for picture in seen.values()} == {(24, 32, 3)}
    np.testing.assert_array_equal(env.render(), seen["observation.images.image2"])
    env.close()


def test_a_camera_that_does_not_exist_is_named() -> None:
    env = made(small_libero("libero_object", camera_name="backview_image"))
    env.reset(0)
    with pytest.raises(SimulatorError, match="backview_image"):
        env.observe()
    env.close()


def test_positive_actions_move_forward_left_up_and_close_the_gripper() -> None:
    env = made(small_libero("libero_object"))
    for index in range(3):
        env.reset(0)
        before = env.observe()[OBS_STATE]
        action = np.zeros(7)
        action[index], action[6] = 1.0, 1.0
        for _ in range(8):
            env.step(action)
        way = env.observe()[OBS_STATE] - before
        assert way[index] > 0.05
        assert np.abs(np.delete(way[:3], index)).max() < 0.02
        assert way[6] < -0.01  # the fingers are nearer to one another
    env.close()


def test_actions_outside_the_box_are_clipped_and_counted() -> None:
    states = []
    for scale in (1.0, 4.0):
        env = made(small_libero("libero_object"))
        env.reset(0)
        env.step(np.full(7, scale))
        states.append(env._sim.sim.get_state().flatten())
        assert env.num_clipped == int(scale > 1)
        env.close()
    np.testing.assert_array_equal(*states)


def test_absolute_actions_are_poses() -> None:
    env = made(small_libero("libero_object", control_mode="absolute"))
    env.reset(0)
    state = env.observe()[OBS_STATE]
    goal = np.array([*(state[:3] + np.array([0.04, 0.05, -0.03])), np.pi, 0.0, 0.0, -1.0])
    for _ in range(30):
        env.step(goal)
    np.testing.assert_allclose(env.observe()[OBS_STATE][:3], goal[:3], atol=0.01)
    assert env.num_clipped == 0
    env.close()


@pytest.mark.parametrize(
    ("suite", "task_id", "most"), [("libero_object", 7, 150), ("libero_goal", 7, 110)]
)
def test_an_expert_succeeds_and_that_ends_the_episode(suite: str, task_id: int, most: int) -> None:
    env = made(small_libero(suite, task_id))
    env.reset(2)
    results = []
    while not results or not results[-1].terminated:
        results.append(env.step(env.expert_action()))
        assert len(results) < most
    assert results[-1].success
    assert results[-1].reward == 1.0
    assert sum(result.reward for result in results) == 1.0
    assert env.num_clipped == 0
    env.close()


def test_a_task_without_an_expert_says_which_have_one() -> None:
    env = made(small_libero("libero_object", 1))
    env.reset(0)
    with pytest.raises(SimulatorError, match="task 7 of libero_goal"):
        env.expert_action()
    env.close()


def test_a_damaged_asset_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "assets"
    shutil.copytree(LIBERO_ASSETS, folder)
    folder.chmod(0o755)
    damaged = folder / "stable_hope_objects/alphabet_soup/visual/textured_vis.msh"
    for path in (damaged.parent, damaged):
        path.chmod(0o755)
    damaged.write_bytes(b"nothing")
    with pytest.raises(SimulatorError, match=r"cannot build .*textured_vis.*--env.assets_dir"):
        made(small_libero("libero_object", assets_dir=str(folder)))


@pytest.mark.parametrize("suite", ["libero_spatial", "libero_object", "libero_goal", "libero_10"])
def test_every_task_builds_and_starts(suite: str) -> None:
    for task_id in range(len(SUITES[suite])):
        env = made(small_libero(suite, task_id))
        env.reset(0)
        assert env.init_state == 0
        env.close()
