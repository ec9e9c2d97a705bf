# SPDX-License-Identifier: Apache-2.0
"""What is known of LIBERO without LIBERO: its flags, tasks, words, assets and stored starts."""

from __future__ import annotations

import io
import pickle
import shutil
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fixtures_root import LIBERO_ASSETS
from vlakit.config.accepted_keys import clean_keys
from vlakit.environments import libero_assets
from vlakit.environments.base import EnvConfig, TaskEntry, decode_config, encode_config
from vlakit.environments.config import LiberoEnvConfig
from vlakit.environments.init_states import read_init_states
from vlakit.environments.libero_assets import find_assets, missing_files
from vlakit.environments.libero_expert import EXPERT_TASKS
from vlakit.environments.libero_package import load_libero
from vlakit.environments.libero_simulator import state_vector
from vlakit.environments.libero_tasks import SUITE_OF, SUITES
from vlakit.errors import ConfigError, SimulatorError
from vlakit.features import ACTION, OBS_STATE


def test_the_default_is_lerobots() -> None:
    config = LiberoEnvConfig()
    assert (config.task, config.fps, config.episode_length) == ("libero_10", 20, None)
    assert (config.observation_height, config.observation_width) == (360, 360)
    assert list(config.features()) == [
        "observation.images.image",
        "observation.images.image2",
        OBS_STATE,
        ACTION,
    ]
    assert config.features()[OBS_STATE]["shape"] == [8]
    assert config.features()[ACTION]["shape"] == [7]


def test_a_comma_list_of_suites_counts_its_tasks_as_libero_does() -> None:
    tasks = "libero_object,libero_spatial,libero_goal,libero_10"
    entries = LiberoEnvConfig(task=tasks).task_list()
    assert len(entries) == 40
    assert [entry.group for entry in entries[::10]] == tasks.split(",")
    assert [entry.task_id for entry in entries] == 4 * list(range(10))
    assert {suite: len(names) for suite, names in SUITES.items()} == {
        "libero_spatial": 10,
        "libero_object": 10,
        "libero_goal": 10,
        "libero_10": 10,
        "libero_90": 90,
    }
    assert len(SUITE_OF) == 130


def test_task_ids_choose_in_every_suite() -> None:
    config = LiberoEnvConfig(task="libero_goal,libero_object", task_ids=(7, 0, 7))
    assert [(entry.group, entry.task_id) for entry in config.task_list()] == [
        ("libero_goal", 0),
        ("libero_goal", 7),
        ("libero_object", 0),
        ("libero_object", 7),
    ]
    assert config.task_list()[1] == TaskEntry("libero_goal", 7, "turn_on_the_stove")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("turn_on_the_stove", "turn on the stove"),
        ("KITCHEN_SCENE8_put_both_moka_pots_on_the_stove", "put both moka pots on the stove"),
        (
            "KITCHEN_SCENE10_close_the_top_drawer_of_the_cabinet",
            "close the top drawer of the cabinet",
        ),
    ],
)
def test_the_words_are_the_name_without_the_scene(name: str, words: str) -> None:
    assert LiberoEnvConfig().instruction(name) == words


def test_every_suite_has_its_own_limit_unless_one_is_given() -> None:
    first = {suite: LiberoEnvConfig().max_steps(names[0]) for suite, names in SUITES.items()}
    assert first == {
        "libero_spatial": 280,
        "libero_object": 280,
        "libero_goal": 300,
        "libero_10": 520,
        "libero_90": 400,
    }
    assert LiberoEnvConfig(episode_length=7).max_steps("turn_on_the_stove") == 7


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"task": ""}, "--env.task is empty"),
        ({"task": "libero_objct"}, "--env.task=libero_objct .* Did you mean 'libero_object'"),
        ({"task": "nothing"}, "not a suite .* It has libero_spatial, libero_object"),
        ({"task": "turn_on_the_stov"}, "Did you mean 'turn_on_the_stove'"),
        ({"task": "turn_on_the_stove"}, r"--env.task=libero_goal --env.task_ids='\[7\]'"),
        ({"task": "libero_10,libero_10"}, "names a suite twice"),
        ({"task_ids": (3, 10)}, r"--env.task_ids=\[3, 10\] has 10, but libero_10 has .* 0 to 9"),
        ({"task_ids": (-1,)}, r"has -1"),
        ({"task_ids": ()}, r"--env.task_ids=\[\] leaves no task"),
        ({"observation_width": 4}, "--env.observation_width=4"),
        ({"camera_name": "agentview"}, "write agentview_image"),
        ({"camera_name": "agentview_image,agentview_image"}, "1 pictures for 2 cameras"),
        ({"camera_name": " "}, "at least one camera"),
        ({"camera_name_mapping": {"agentview_image": "image2"}}, None),
        ({"episode_length": 0}, "--env.episode_length=0"),
        ({"fps": 0}, "--env.fps=0"),
    ],
)
def test_bad_settings_are_named(flags: dict[str, Any], words: str | None) -> None:
    if words is None:
        LiberoEnvConfig(**flags).task_list()
        return
    with pytest.raises(ConfigError, match=words):
        LiberoEnvConfig(**flags).task_list()


def test_cameras_have_lerobots_names_or_the_given_ones() -> None:
    names = "frontview_image,agentview_image"
    assert LiberoEnvConfig(camera_name=names).cameras() == {
        "observation.images.frontview": "frontview",
        "observation.images.image": "agentview",
    }
    renamed = LiberoEnvConfig(camera_name_mapping={"agentview_image": "top"})
    assert renamed.cameras() == {
        "observation.images.top": "agentview",
        "observation.images.robot0_eye_in_hand": "robot0_eye_in_hand",
    }


def test_pictures_alone_are_without_a_state() -> None:
    assert OBS_STATE not in LiberoEnvConfig(obs_type="pixels").features()


def test_a_config_survives_the_way_to_a_worker() -> None:
    config = LiberoEnvConfig(task_ids=(1, 2), camera_name_mapping={"agentview_image": "top"})
    assert decode_config(encode_config(config)) == config


@pytest.mark.parametrize(
    ("quaternion", "turn"),
    [
        ((0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),
        ((1.0, 0.0, 0.0, 0.0), (np.pi, 0.0, 0.0)),
        ((0.0, 0.0, np.sin(0.25), np.cos(0.25)), (0.0, 0.0, 0.5)),
        ((0.0, 0.0, 0.0, 1.0000001), (0.0, 0.0, 0.0)),
        ((0.0, np.sin(0.25), 0.0, -np.cos(0.25)), (0.0, 2 * np.pi - 0.5, 0.0)),  # not the short way
    ],
)
def test_the_state_is_place_turn_and_fingers(quaternion: tuple, turn: tuple) -> None:
    state = state_vector(np.array([1.0, 2.0, 3.0]), np.array(quaternion), np.array([0.4, -0.4]))
    assert state.dtype == np.float32
    np.testing.assert_allclose(state, [1, 2, 3, *turn, 0.4, -0.4], atol=1e-6)


def test_experts_are_for_tasks_that_exist() -> None:
    assert len(EXPERT_TASKS) == 10
    assert SUITE_OF.keys() >= EXPERT_TASKS


# Assets


@pytest.fixture
def no_assets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LIBERO_ASSETS", raising=False)
    monkeypatch.setattr(libero_assets, "_own_places", lambda: [tmp_path / "nowhere"])


def complete(folder: Path) -> Path:
    for name in missing_files(folder, ["libero_10"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_the_given_folder_goes_before_the_variable(
    no_assets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, variable = complete(tmp_path / "given"), complete(tmp_path / "variable")
    monkeypatch.setenv("LIBERO_ASSETS", str(variable))
    assert find_assets(str(given), ["libero_10"]) == given
    assert find_assets(None, ["libero_10"]) == variable


def test_liberos_own_download_is_found(
    no_assets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = complete(tmp_path / "home")
    monkeypatch.setattr(libero_assets, "_own_places", lambda: [tmp_path / "nowhere", home])
    assert find_assets(None, ["libero_10"]) == home


def test_missing_files_are_named_with_the_way_to_get_them(no_assets, tmp_path: Path) -> None:
    folder = complete(tmp_path / "assets")
    shutil.rmtree(folder / "stable_hope_objects" / "milk")
    with pytest.raises(
        SimulatorError,
        match=r"assets_dir=.* lacks stable_hope_objects/milk/milk.xml, .*hf download",
    ):
        find_assets(str(folder), ["libero_object"])
    shutil.rmtree(folder / "stable_hope_objects")
    with pytest.raises(SimulatorError, match=r"alphabet_soup\.xml.* and \d+ more"):
        find_assets(str(folder), ["libero_object"])
    assert missing_files(folder, ["libero_90"]) == ["stable_hope_objects"]


def test_a_folder_that_is_not_there(
    no_assets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SimulatorError, match=r"--env.assets_dir=/no/where is no folder"):
        find_assets("/no/where", ["libero_10"])
    monkeypatch.setenv("LIBERO_ASSETS", "/not/here")
    with pytest.raises(SimulatorError, match=r"LIBERO_ASSETS=/not/here is no folder"):
        find_assets(None, ["libero_10"])


def test_without_assets_and_hub_the_error_says_what_to_type(
    no_assets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SimulatorError, match=r"hub cannot be reached.*hf download .*LIBERO_ASSETS"):
        find_assets(None, ["libero_10"])


@pytest.mark.skipif(not LIBERO_ASSETS.is_dir(), reason="no ../shared/libero-assets")
def test_the_assets_of_the_tests_are_complete() -> None:
    assert missing_files(LIBERO_ASSETS, ["libero_10"]) == []


@pytest.mark.skipif(find_spec("libero") is not None, reason="LIBERO is installed")
def test_without_the_package_the_error_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(SimulatorError, match=r"pip install 'vlakit\[libero\]'"):
        load_libero(tmp_path)


# Stored starts


def stored(path: Path, value: object) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value, protocol=2))
        archive.writestr("archive/version", "3")
    return path


def as_numpy_1(path: Path) -> Path:
    """Write the array's module as the files of LIBERO have it."""
    with zipfile.ZipFile(path) as archive:
        data = archive.read("archive/data.pkl").replace(b"numpy._core.", b"numpy.core.")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return path


@pytest.mark.parametrize("shape", [(50, 92), (3, 300), (1, 1)])
def test_stored_starts_are_read_without_running_them(tmp_path: Path, shape: tuple) -> None:
    states = np.random.default_rng(0).normal(size=shape)
    path = as_numpy_1(stored(tmp_path / "a.pruned_init", states))
    np.testing.assert_array_equal(read_init_states(path), states)


class Harmful:
    def __reduce__(self) -> tuple:
        return (print, ("this must not run",))


@pytest.mark.parametrize(
    "value",
    [
        Harmful(),
        [np.zeros((2, 2)), Harmful()],
        np.zeros((2, 2), np.float32),
        np.zeros(3),
        np.zeros((2, 3, 4)),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        {},
    ],
)
def test_anything_but_one_array_is_refused(
    tmp_path: Path, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    path = as_numpy_1(stored(tmp_path / "a.pruned_init", value))
    with pytest.raises(SimulatorError, match="expected LIBERO's stored starts"):
        read_init_states(path)
    assert capsys.readouterr().out == ""


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = as_numpy_1(stored(tmp_path / "a.pruned_init", np.zeros((4, 4))))
    for length in (0, 10, path.stat().st_size - 30):
        (tmp_path / "b").write_bytes(io.BytesIO(path.read_bytes()).read(length))
        with pytest.raises(SimulatorError, match="cannot be read"):
            read_init_states(tmp_path / "b")
    with pytest.raises(SimulatorError, match="cannot be read"):
        read_init_states(tmp_path / "missing")


def test_settings_in_a_file_of_lerobot_are_taken() -> None:
    """LeRobot 0.6.1 writes all of its fields."""
    theirs = {
        "type": "libero",
        "task": "libero_object",
        "fps": 20,
        "features": {"action": {"type": "ACTION", "shape": [7]}},
        "features_map": {"action": "action"},
        "max_parallel_tasks": 1,
        "disable_env_checker": True,
        "task_ids": [0, 3],
        "episode_length": None,
        "obs_type": "pixels_agent_pos",
        "render_mode": "rgb_array",
        "camera_name": "agentview_image,robot0_eye_in_hand_image",
        "init_states": True,
        "hard_reset": True,
        "camera_name_mapping": None,
        "observation_height": 360,
        "observation_width": 360,
        "is_libero_plus": False,
        "control_mode": "relative",
    }
    taken = clean_keys(EnvConfig, theirs, source="train_config.json")
    assert taken.pop("type") == "libero"
    assert LiberoEnvConfig(**taken) == LiberoEnvConfig(task="libero_object", task_ids=[0, 3])
