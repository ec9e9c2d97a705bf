# SPDX-License-Identifier: Apache-2.0
"""Reading a dataset's actions: two columns, and an error for whatever is wrong with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.damage import edit_json, edit_table, remove, with_value
from tests.fixtures_root import FIXTURE_ROOT
from vlakit.datasets.location import DatasetLocation
from vlakit.errors import DatasetError
from vlakit.training.fast_tokenizer.actions import Actions, read_actions
from vlakit.training.tokenizer_config import TokenizerFlags

DATA = "data/chunk-000/file-000.parquet"
RELATIVE = {"relative_dims": "0", "use_relative_transform": True}
TOY = FIXTURE_ROOT / "dataset"


@pytest.fixture
def copy(arm: Path, tmp_path: Path) -> Path:
    """A copy of the recording for a test to damage."""
    return Path(shutil.copytree(arm, tmp_path / "arm"))


def read(root: Path, **flags: object) -> Actions:
    return read_actions(TokenizerFlags(repo_id="me/arm", root=str(root), **flags))


def test_videos_are_never_touched(tmp_path: Path) -> None:
    root = tmp_path / "toy"
    shutil.copytree(TOY / "v3.0", root, ignore=shutil.ignore_patterns("videos"))
    actions = read(root, **RELATIVE)
    assert actions.values.shape == (77, 4)
    assert actions.states is not None
    assert actions.states.shape == (77, 7)
    assert actions.labels() == "0 a0, 1 a1, 2 a2, 3 gripper"


def test_of_a_dataset_on_the_hub_only_the_tables_of_the_episodes_are_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(DatasetLocation, "fetch", lambda _, paths: fetched.extend(paths))
    files = [f"data/chunk-000/episode_{episode:06d}.parquet" for episode in range(3)]
    read(TOY / "v2.1", normalization_mode="MEAN_STD", max_episodes=2)
    assert fetched == files[:2]
    fetched.clear()
    read(TOY / "v2.1", max_episodes=2)  # quantiles are those of the whole dataset
    assert fetched == files


def test_quantiles_that_version_2_1_lacks_are_those_of_all_frames() -> None:
    actions = read(TOY / "v2.1", max_episodes=1)
    assert actions.quantiles_are_computed
    assert len(actions.episodes) == 1
    whole = read(TOY / "v2.1")
    np.testing.assert_allclose(actions.stats["q99"], np.quantile(whole.values, 0.99, axis=0))


def test_a_folder_may_stand_for_the_name(arm: Path) -> None:
    assert len(read_actions(TokenizerFlags(repo_id=str(arm))).values) == 101


def test_no_statistics(copy: Path) -> None:
    remove("meta/stats.json")(copy)
    with pytest.raises(DatasetError, match=r"stats\.json is missing: a dataset needs statistics"):
        read(copy)
    assert not read(copy, normalization_mode="IDENTITY").stats


def test_no_statistics_of_the_action(copy: Path) -> None:
    edit_json("meta/stats.json", lambda stats: stats.pop("action"))(copy)
    with pytest.raises(DatasetError, match=r"lack max, mean, min, std of feature 'action'"):
        read(copy)


def test_values_that_are_not_finite_are_named(copy: Path) -> None:
    edit_table(DATA, with_value("action", 30 + 5, float("nan")))(copy)
    message = r"'action' of episode 1, frame 5, dimension 0 is nan \(1 such frames in all\)"
    with pytest.raises(DatasetError, match=message):
        read(copy)
    assert len(read(copy, max_episodes=1).values)  # the episode is not asked for


def test_a_state_that_is_not_finite_is_named(copy: Path) -> None:
    edit_table(DATA, with_value("observation.state", 3, float("inf")))(copy)
    with pytest.raises(DatasetError, match=r"'observation\.state' of episode 0, frame 3, dim"):
        read(copy, **RELATIVE)
    assert read(copy).states is None


def test_no_such_state(copy: Path) -> None:
    with pytest.raises(DatasetError, match=r"Did you mean 'observation\.state'\? Give another --s"):
        read(copy, state_key="observation.sate", **RELATIVE)


def test_no_action(copy: Path) -> None:
    edit_json("meta/info.json", lambda info: info["features"].pop("action"))(copy)
    with pytest.raises(DatasetError, match=r"has no feature 'action'; it has observation\.state"):
        read(copy)


def test_an_action_that_is_no_vector(copy: Path) -> None:
    edit_json("meta/info.json", lambda info: info["features"]["action"].update(shape=[7, 1]))(copy)
    with pytest.raises(DatasetError, match=r"is float32 of shape \[7, 1\]; expected a vector"):
        read(copy)


def test_names_may_be_grouped_or_missing(copy: Path) -> None:
    path = copy / "meta/info.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    for names, label in (({"motors": list("abcdefg")}, "6 g"), (None, "6"), (["a"], "6")):
        info["features"]["action"]["names"] = names
        path.write_text(json.dumps(info), encoding="utf-8")
        assert read(copy).label(6) == label
