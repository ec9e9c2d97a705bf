# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from vlakit.environments.config import PushTEnvConfig
from vlakit.environments.pusht import TASK, PushTEnvironment
from vlakit.errors import ConfigError, SimulatorError
from vlakit.features import OBS_IMAGE, OBS_STATE

needs_pusht = pytest.mark.skipif(
    find_spec("gym_pusht") is None, reason="PushT is not installed: pip install 'vlakit[pusht]'"
)


@pytest.fixture
def env() -> Iterator[PushTEnvironment]:
    made = PushTEnvConfig(observation_height=48, observation_width=64).make(TASK)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"fps": 20}, "--env.fps=20 is not possible"),
        ({"task": "PushT"}, "Did you mean 'PushT-v0'"),
        ({"observation_height": 4}, "--env.observation_height=4"),
        ({"visualization_width": 4000}, "--env.visualization_width=4000"),
    ],
)
def test_bad_settings_are_named(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PushTEnvConfig(**flags).task_list()


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gym_pusht.envs.pusht", None)
    with pytest.raises(SimulatorError, match=r"pip install 'vlakit\[pusht\]'"):
        PushTEnvConfig().make(TASK)


def test_without_a_library_of_opencv_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_library(name: str) -> None:
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr("importlib.import_module", no_library)
    with pytest.raises(SimulatorError, match=r"apt-get install .* libgl1 libglib2"):
        PushTEnvConfig().make(TASK)


@needs_pusht
def test_observations_have_the_promised_features(env: PushTEnvironment) -> None:
    env.reset(0)
    seen = env.observe()
    for name, array in seen.items():
        assert list(array.shape) == env.config.features()[name]["shape"]
    assert seen[OBS_IMAGE].dtype == np.uint8
    assert seen[OBS_STATE].dtype == np.float32
    assert env.render().shape == (384, 384, 3)
    assert env.task == "Push the T-shaped block onto the T-shaped target."


@needs_pusht
def test_it_is_gym_pusht(env: PushTEnvironment) -> None:
    from gym_pusht.envs.pusht import PushTEnv

    theirs = PushTEnv("pixels_agent_pos", observation_width=64, observation_height=48)
    seen, _ = theirs.reset(seed=7)
    env.reset(7)
    generator = np.random.default_rng(0)
    for _ in range(10):
        ours = env.observe()
        np.testing.assert_array_equal(ours[OBS_IMAGE], seen["pixels"])
        np.testing.assert_allclose(ours[OBS_STATE], seen["agent_pos"], rtol=1e-6)
        action = generator.uniform(100, 400, 2).astype(np.float32)
        result = env.step(action)
        seen, reward, terminated, _, _ = theirs.step(action)
        assert (result.reward, result.terminated) == (reward, terminated)


@needs_pusht
def test_a_used_instance_replays_a_seed_to_the_bit(env: PushTEnvironment) -> None:
    first = {}
    for seed in (3, 4, 3, 4):
        env.reset(seed)
        actions = np.random.default_rng(seed).uniform(50, 450, (20, 2))
        rewards = [env.step(action).reward for action in actions]
        seen = (rewards, env.observe()[OBS_IMAGE].tobytes(), env.render().tobytes())
        assert first.setdefault(seed, seen) == seen
    assert first[3] != first[4]


@needs_pusht
def test_the_block_on_its_mark_is_a_success(env: PushTEnvironment) -> None:
    env.reset(0)
    for _ in range(20):  # out of the way
        assert not env.step(np.array([20.0, 20.0])).success
    env._sim.block.angle = np.pi / 4
    env._sim.block.position = (256, 256)
    result = env.step(np.array([20.0, 20.0]))
    assert result.success
    assert result.terminated
    assert result.reward == 1.0


@needs_pusht
def test_actions_outside_the_table_are_clipped_and_counted(env: PushTEnvironment) -> None:
    places = []
    for action in ([600.0, -50.0], [512.0, 0.0]):
        env.reset(0)
        env.step(np.array(action))
        places.append(env.observe()[OBS_STATE])
        assert env.num_clipped == int(action[0] > 512)
    np.testing.assert_array_equal(*places)


@needs_pusht
def test_there_is_no_expert_and_that_is_said(env: PushTEnvironment) -> None:
    env.reset(0)
    with pytest.raises(SimulatorError, match="no scripted expert"):
        env.expert_action()
