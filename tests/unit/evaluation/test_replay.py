# SPDX-License-Identifier: Apache-2.0
"""Recordings played again in simulators that are wired right, and in some that are not."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from tests.unit.environments.toy import ToyEnvConfig, ToyEnvironment
from vlakit.collection.config import CollectConfig
from vlakit.collection.expert import collect
from vlakit.environments.base import StepResult
from vlakit.environments.collection_record import RECORD_PATH
from vlakit.environments.expert_env import ExpertEnvConfig
from vlakit.errors import ConfigError
from vlakit.evaluation.config import EvalConfig
from vlakit.evaluation.expert_planner import ExpertPlanner
from vlakit.evaluation.recording import Recording
from vlakit.evaluation.replay import ReplayPlanner, picture_differences
from vlakit.evaluation.replay_findings import ReplayReport, replay_report
from vlakit.evaluation.results import EvaluationResult
from vlakit.evaluation.rollout import evaluate
from vlakit.features import OBS_IMAGE, OBS_STATE

QUIET = Console(quiet=True)
ONE_BY_ONE = EvalConfig(n_episodes=3, batch_size=2, use_async_envs=False)


@dataclass(frozen=True, kw_only=True)
class WiredToyConfig(ToyEnvConfig):
    """The toy with a picture that has an up and a left, and with faults to choose."""

    size: int = 32
    goal: float = 8.0
    turned: str = ""
    state_sign: float = 1.0
    action_sign: float = 1.0
    shift: float = 0.0

    def make(self, task: str) -> WiredToy:
        return WiredToy(self, task)


class WiredToy(ToyEnvironment):
    config: WiredToyConfig

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self._position += self.config.shift

    def step(self, action: NDArray[Any]) -> StepResult:
        return super().step(np.asarray(action) * self.config.action_sign)

    def observe(self) -> dict[str, NDArray[Any]]:
        state = (self._position * self.config.state_sign).astype(np.float32)
        return {OBS_IMAGE: self.render(), OBS_STATE: state}

    def render(self) -> NDArray[np.uint8]:
        size = self.config.size
        rows, columns = np.mgrid[:size, :size]
        colours = [rows * 6, columns * 3, np.full_like(rows, 30)]
        picture = np.stack(colours, axis=-1).astype(np.uint8)
        place = int(np.clip(size / 2 + 2 * self._position[0], 2, size - 4))
        picture[4:12, place - 2 : place + 4] = (250, 250, 40)
        turns = {
            "": picture,
            "upside down": picture[::-1],
            "mirrored": picture[:, ::-1],
            "turned": picture[::-1, ::-1],
            "swapped": picture[..., ::-1],
        }
        return np.ascontiguousarray(turns[self.config.turned])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("recorded") / "data"
    env = WiredToyConfig(task="push,pull")
    config = CollectConfig(
        env=env, repo_id="a/b", root=str(root), episodes=4, noise=0.3, num_workers=1, seed=7
    )
    collect(config, console=QUIET)
    return root


def replay(dataset: Path, env: WiredToyConfig) -> tuple[EvaluationResult, ReplayReport]:
    recording = Recording(str(dataset), env, max_episodes=3, first_seed=1000)
    planner = ReplayPlanner(recording)
    steps = recording.longest + 10
    result = evaluate(
        planner,
        replace(env, episode_length=steps),
        ONE_BY_ONE,
        seed=1000,
        seeds=recording.seeds,
        console=QUIET,
    )
    report = replay_report(
        planner.frames,
        dataset="a/b",
        knows_starts=recording.knows_starts,
        state_names=["x", "y", "z"],
    )
    return result, report


def test_a_simulator_that_is_wired_right_goes_the_recorded_way(dataset: Path) -> None:
    result, report = replay(dataset, WiredToyConfig(task="push,pull"))
    assert [episode.seed for episode in result.episodes] == [7, 8, 9, 7, 8, 9]
    assert result.success_rate == 1
    assert report.start_error == 0
    assert [number.max_error for number in report.state] == [0, 0, 0]  # noise and all
    assert report.findings == []
    assert report.summary.startswith(f"Over {report.num_frames} compared frames: states equal")
    json.dumps(report.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("turned", "words"),
    [
        ("upside down", "better upside down"),
        ("mirrored", "better mirrored"),
        ("turned", "better turned by 180 degrees"),
        ("swapped", "better red and blue swapped"),
    ],
)
def test_a_picture_that_lies_otherwise_is_named(dataset: Path, turned: str, words: str) -> None:
    result, report = replay(dataset, WiredToyConfig(task="push", turned=turned))
    assert result.success_rate == 1  # recorded actions do not look
    (finding,) = report.findings
    assert finding.startswith("observation.image fits the recording")
    assert words in finding


def test_a_sign_that_is_wrong_in_the_action_or_in_the_state_is_named(dataset: Path) -> None:
    result, report = replay(dataset, WiredToyConfig(task="push", action_sign=-1.0))
    assert result.success_rate == 0
    assert any(f.startswith("x of the state goes the other way") for f in report.findings)
    result, report = replay(dataset, WiredToyConfig(task="push", state_sign=-1.0))
    assert result.success_rate == 1
    assert any(f.startswith("x of the state goes the other way") for f in report.findings)


def test_another_start_is_named(dataset: Path) -> None:
    _, report = replay(dataset, WiredToyConfig(task="push", shift=1.0))
    assert any("the first states differ by up to" in finding for finding in report.findings)


def test_without_a_record_tasks_are_found_by_their_words_and_starts_are_unknown(
    dataset: Path, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for part in ("data", "videos", "meta"):
        (foreign / part).symlink_to(dataset / part)
    (foreign / "meta").unlink()
    (foreign / "meta").mkdir()
    for path in (dataset / "meta").iterdir():
        if path.name != Path(RECORD_PATH).name:
            (foreign / "meta" / path.name).symlink_to(path)
    recording = Recording(str(foreign), WiredToyConfig(task="pull"), max_episodes=2, first_seed=50)
    assert not recording.knows_starts
    assert recording.seeds == {"pull": [50, 51]}
    assert [episode.index for episode in recording.episodes["pull"]] == [4, 5]


def test_tasks_and_pictures_that_were_not_recorded_are_named(dataset: Path) -> None:
    with pytest.raises(ConfigError, match=r"no episode of --env\.task=fail .* only of “push the"):
        Recording(str(dataset), WiredToyConfig(task="fail"), max_episodes=2, first_seed=0)
    env = WiredToyConfig(task="push", size=16)
    with pytest.raises(ConfigError, match=r"recorded as \(32, 32, 3\), but is \(16, 16, 3\)"):
        Recording(str(dataset), env, max_episodes=2, first_seed=0)


def test_differences_of_pictures_by_hand() -> None:
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[0, 0] = (120, 0, 0)
    same, down, mirrored, turned, swapped = picture_differences(picture, picture)
    assert same == 0
    assert down == mirrored == turned == 240 / 12
    assert swapped == 240 / 12


def test_an_expert_acts_and_its_actions_are_what_is_executed() -> None:
    env = ToyEnvConfig(task="push,pull")
    result = evaluate(ExpertPlanner(), ExpertEnvConfig.of(env), ONE_BY_ONE, seed=3, console=QUIET)
    assert result.success_rate == 1
    assert {episode.clipped_actions for episode in result.episodes} == {0}
    assert all(episode.num_plans == episode.num_steps > 2 for episode in result.episodes)
