# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.environments.toy import ToyEnvConfig, ToyEnvironment
from vlakit.environments.base import StepResult, decode_config, encode_config
from vlakit.environments.collection_record import (
    RECORD_PATH,
    CollectionRecord,
    RecordedStart,
    read_record,
    write_record,
)
from vlakit.environments.expert_env import EXPERT_ACTION, ExpertEnvConfig, ExpertEnvironment
from vlakit.environments.expert_episode import record_expert_episode, with_noise
from vlakit.errors import DatasetError


def test_a_worker_process_gets_the_wrapped_settings() -> None:
    inner = ToyEnvConfig(task="push", goal=2.5, fps=7)
    config = decode_config(encode_config(ExpertEnvConfig.of(inner)))
    assert isinstance(config, ExpertEnvConfig)
    assert config.wrapped == inner
    assert (config.type, config.fps, config.task_list()) == ("toy", 7, inner.task_list())
    assert config.features() == inner.features()


def test_what_the_expert_would_do_is_seen_and_nothing_is_drawn() -> None:
    env = ExpertEnvConfig.of(ToyEnvConfig(task="push")).make("push")
    assert isinstance(env, ExpertEnvironment)
    env.reset(3)
    (name,) = env.observe()
    assert name == EXPERT_ACTION
    steps = 0
    while not env.step(env.observe()[EXPERT_ACTION]).success:
        steps += 1
    assert 2 <= steps < 20
    assert env.num_clipped == 0
    inner = env._env
    assert isinstance(inner, ToyEnvironment)
    assert inner.num_pictures == 0


class _Listener(ToyEnvironment):
    """Keeps the actions that it was told."""

    def __init__(self) -> None:
        super().__init__(ToyEnvConfig(task="push"), "push")
        self.executed: list[np.ndarray] = []

    def step(self, action: np.ndarray) -> StepResult:
        self.executed.append(np.array(action))
        return super().step(action)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_what_was_executed_follows_from_what_was_recorded(noise: float) -> None:
    env = _Listener()
    episode = record_expert_episode(env, 11, noise=noise, frames_after_success=2)
    executed = with_noise(episode.frames["action"], 11, noise)
    np.testing.assert_array_equal(executed, np.stack(env.executed))
    assert executed.dtype == np.float32
    assert np.array_equal(executed, episode.frames["action"]) == (noise == 0)


def test_a_record_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    attempts = [
        {"task": "push", "seed": 3, "success": True, "episode_index": 0},
        {"task": "push", "seed": 4, "success": False, "episode_index": None},
        {"task": "pull", "seed": 3, "success": True, "episode_index": 1},
    ]
    env = {"type": "toy", "fps": 10}
    write_record(tmp_path, {"env": env, "noise": 0.1}, attempts)
    record = read_record(tmp_path)
    assert (record.env, record.noise) == (env, 0.1)
    assert record.starts == {0: RecordedStart("push", 3), 1: RecordedStart("pull", 3)}


def test_no_record_is_no_error_a_damaged_one_is(tmp_path: Path) -> None:
    assert read_record(tmp_path) == CollectionRecord()
    path = tmp_path / RECORD_PATH
    path.parent.mkdir()
    for text in ("{", "", '{"settings": {}}\n'):
        path.write_text(text)
        with pytest.raises(DatasetError, match=r"vlakit_collection\.jsonl is damaged"):
            read_record(tmp_path)
