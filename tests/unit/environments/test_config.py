# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from vlakit.environments.base import EnvConfig, TaskEntry, decode_config, encode_config
from vlakit.environments.config import MetaworldEnvConfig, PushTEnvConfig, RolloutConfig
from vlakit.environments.metaworld import crop_pixels
from vlakit.environments.metaworld_tasks import INSTRUCTIONS, TASK_GROUPS
from vlakit.errors import ConfigError, SimulatorError


def test_a_comma_list_keeps_its_order() -> None:
    config = MetaworldEnvConfig(task="drawer-open-v3, drawer-close-v3")
    assert config.task_list() == [
        TaskEntry("drawer-open-v3", 0, "drawer-open-v3"),
        TaskEntry("drawer-close-v3", 0, "drawer-close-v3"),
    ]


def test_a_group_stands_for_its_tasks() -> None:
    entries = MetaworldEnvConfig(task="hard").task_list()
    assert [entry.task_id for entry in entries] == list(range(6))
    assert {entry.group for entry in entries} == {"hard"}


def test_every_task_has_one_sentence_and_one_group() -> None:
    assert len(INSTRUCTIONS) == 50
    assert len(set(INSTRUCTIONS.values())) == 50
    assert {name: len(tasks) for name, tasks in TASK_GROUPS.items()} == {
        "easy": 28,
        "medium": 11,
        "hard": 6,
        "very_hard": 5,
        "mt10": 10,
        "mt50": 50,
    }
    difficulties = [TASK_GROUPS[name] for name in ("easy", "medium", "hard", "very_hard")]
    assert sorted(sum(difficulties, ())) == sorted(INSTRUCTIONS)
    assert sorted(TASK_GROUPS["mt50"]) == sorted(INSTRUCTIONS)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"task": ""}, "--env.task is empty"),
        ({"task": "drawer-opn-v3"}, "--env.task=drawer-opn-v3 .* Did you mean 'drawer-open-v3'"),
        ({"task": "reach-v3,reach-v3"}, "holds reach-v3 twice"),
        ({"task": "mt10,reach-v3"}, "holds reach-v3 twice"),
        ({"task": "push-v2"}, "--env.task=push-v2 .* give --env.task=push-v3"),
        ({"task": "reach-v3,metaworld-push-v2"}, "give --env.task=push-v3"),
        ({"task": "mt5"}, "Did you mean 'mt50'"),
        ({"episode_length": 501}, "--env.episode_length=501 is more than 500"),
        ({"fps": 0}, "--env.fps=0"),
        ({"observation_height": 4}, "--env.observation_height=4"),
        ({"camera_name": "corner9"}, "--env.camera_name=corner9 .* corner2"),
        ({"crop": (0.5, 0.0, 0.4, 1.0)}, r"--env.crop=\[0.5,0,0.4,1\]"),
        ({"crop": (0.0, 0.0, 1.0, 0.5)}, "2.00 times as wide as high"),
    ],
)
def test_bad_settings_are_named(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MetaworldEnvConfig(**flags).task_list()


@pytest.mark.parametrize("config", [MetaworldEnvConfig, PushTEnvConfig])
def test_a_missing_simulator_is_named_before_anything_starts(
    config: type[EnvConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SimulatorError, match=r"pip install 'vlakit\[(metaworld|pusht)\]'"):
        config(task="reach-v3").check_machine()
    PushTEnvConfig(python="/opt/sim/bin/python").check_machine()


def test_a_config_survives_the_way_to_a_worker() -> None:
    config = MetaworldEnvConfig(task="reach-v3", crop=(0.25, 0.0, 1.0, 0.75), fast_render=False)
    assert decode_config(encode_config(config)) == config


def test_the_crop_has_exactly_the_size_of_the_observation() -> None:
    assert crop_pixels((0.25, 0.15, 1.0, 0.9), 96, 96) == (32, 19, 128)
    for size in range(64, 130):
        left, top, side = crop_pixels((0.25, 0.25, 1.0, 1.0), size, size)
        assert left + size <= side
        assert top + size <= side


@pytest.mark.parametrize(
    ("batch_size", "num_rollouts", "cores", "expected"),
    [(0, 50, 2, 4), (0, 3, 2, 3), (0, 500, 128, 64), (7, 50, 2, 7), (7, 5, 2, 5)],
)
def test_as_many_environments_as_asked_for_or_two_a_core(
    batch_size: int, num_rollouts: int, cores: int, expected: int
) -> None:
    assert RolloutConfig(batch_size=batch_size).num_envs(cores, num_rollouts) == expected


@pytest.mark.parametrize("wrong", [{"n_episodes": 0}, {"batch_size": -1}])
def test_numbers_of_rollouts_are_checked(wrong: dict[str, int]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=rf"--eval\.{name}=.* must be at least"):
        RolloutConfig(**wrong)
