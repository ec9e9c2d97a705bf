# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.unit.environments.toy import ToyEnvConfig
from vlakit.collection.config import CollectConfig
from vlakit.collection.expert import collect
from vlakit.environments.expert_episode import record_expert_episode
from vlakit.errors import ConfigError, SimulatorError
from vlakit.features import ACTION, OBS_STATE

QUIET = Console(quiet=True)


def test_the_clean_action_is_recorded_and_a_noisy_one_executed() -> None:
    env = ToyEnvConfig(goal=6.0).make("push")
    clean = record_expert_episode(env, 0, noise=0.0, frames_after_success=0)
    noisy = record_expert_episode(env, 0, noise=0.4, frames_after_success=0)
    again = record_expert_episode(env, 0, noise=0.4, frames_after_success=0)
    assert (noisy.frames[ACTION] == np.float32([0.9, 0, 0])).all()
    steps = np.diff(noisy.frames[OBS_STATE][:, 0])
    assert np.ptp(steps) > 0.1
    assert np.ptp(np.diff(clean.frames[OBS_STATE][:, 0])) < 1e-6
    np.testing.assert_array_equal(noisy.frames[OBS_STATE], again.frames[OBS_STATE])


def test_frames_after_success_are_kept() -> None:
    env = ToyEnvConfig().make("push")
    short = record_expert_episode(env, 0, noise=0.0, frames_after_success=0)
    long = record_expert_episode(env, 0, noise=0.0, frames_after_success=6)
    assert long.num_steps == short.num_steps + 6
    assert len(long.frames[ACTION]) == long.num_steps


def test_a_failure_has_no_frames() -> None:
    episode = record_expert_episode(
        ToyEnvConfig().make("fail"), 0, noise=0.0, frames_after_success=6
    )
    assert (episode.success, episode.num_steps, episode.frames) == (False, 20, {})


def test_an_expert_that_never_succeeds_is_given_up_and_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "data"
    config = CollectConfig(
        env=ToyEnvConfig(task="fail", size=16), repo_id="a/b", root=str(root), num_workers=1
    )
    with pytest.raises(SimulatorError, match=r"--env\.task=fail failed 11 of 11 times"):
        collect(config, console=QUIET)
    assert not root.exists()


def test_a_folder_that_exists_is_not_touched(tmp_path: Path) -> None:
    config = CollectConfig(env=ToyEnvConfig(task="push"), repo_id="a/b", root=str(tmp_path))
    with pytest.raises(ConfigError, match=f"--root={tmp_path} exists"):
        collect(config, console=QUIET)


@pytest.mark.parametrize("flag", ["episodes", "num_workers", "noise", "frames_after_success"])
def test_negative_numbers_are_named(flag: str) -> None:
    with pytest.raises(ConfigError, match=f"--{flag}=-1 must be at least"):
        CollectConfig(env=ToyEnvConfig(task="push"), repo_id="a/b", **{flag: -1})
