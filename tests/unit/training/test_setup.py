# SPDX-License-Identifier: Apache-2.0
"""What a run is built from: episodes, features, statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.fixtures_root import FIXTURE_ROOT
from vlakit.datasets.config import DatasetConfig
from vlakit.datasets.reading.versions import load_metadata
from vlakit.errors import ConfigError
from vlakit.features import FeatureType, PolicyFeature
from vlakit.policies.eo1.config import EO1Config
from vlakit.policies.pi0_fast import PI0FastConfig
from vlakit.training import setup
from vlakit.training.config import TrainFlags

ROOT = FIXTURE_ROOT / "dataset" / "v3.0"
CPU = torch.device("cpu")
IMAGE = PolicyFeature(FeatureType.VISUAL, (3, 8, 8))
STATE = PolicyFeature(FeatureType.STATE, (4,))
ACTION = PolicyFeature(FeatureType.ACTION, (2,))
FEATURES = {
    "observation.images.a": IMAGE,
    "observation.images.b": IMAGE,
    "observation.state": STATE,
    "action": ACTION,
}


def _flags(**dataset: Any) -> TrainFlags:
    return TrainFlags(
        dataset=DatasetConfig(repo_id="a", root=str(ROOT), **dataset),
        policy=EO1Config(push_to_hub=False),
    )


def test_a_new_policy_reads_every_observation() -> None:
    config = setup.fit_config(EO1Config(), FEATURES, CPU)
    assert list(config.input_features) == [name for name in FEATURES if name != "action"]
    assert config.output_features == {"action": ACTION}
    assert config.device == "cpu"


def test_a_checkpoint_keeps_its_inputs_and_their_order() -> None:
    inputs = {"observation.images.b": IMAGE, "observation.state": STATE}
    config = setup.fit_config(EO1Config(input_features=inputs), FEATURES, CPU)
    assert list(config.input_features) == ["observation.images.b", "observation.state"]


def test_cameras_that_do_not_exist_are_not_missed() -> None:
    empty = "observation.images.empty_camera_0"
    inputs = {"observation.images.b": IMAGE, empty: IMAGE, "observation.state": STATE}
    config = setup.fit_config(PI0FastConfig(input_features=inputs, empty_cameras=1), FEATURES, CPU)
    assert list(config.input_features) == ["observation.images.b", "observation.state"]
    assert empty in config.with_default_features().input_features
    with pytest.raises(ConfigError, match="empty_camera_0"):
        setup.fit_config(PI0FastConfig(input_features=inputs), FEATURES, CPU)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x", "Gripper"], ["x", "Gripper"]),
        ({"motors": ["x", "y"]}, ["x", "y"]),
        (None, None),
        (["x"], None),
        ({"a": ["x"], "b": ["y"]}, None),
    ],
)
def test_the_dataset_names_the_dimensions_of_the_action(names: Any, expected: Any) -> None:
    features = {"action": {"shape": (2,), "names": names}}
    assert setup.with_action_names(PI0FastConfig(), features).action_feature_names == expected
    given = PI0FastConfig(action_feature_names=["a", "b"])
    assert setup.with_action_names(given, features) is given
    assert setup.with_action_names(EO1Config(), features) == EO1Config()


def test_relative_actions_get_their_own_statistics() -> None:
    data = setup.open_data(_flags(), chunk_size=3)
    assert setup.with_relative_stats(EO1Config(), data, {}) is data
    config = PI0FastConfig(
        use_relative_actions=True, relative_exclude_joints=[], chunk_size=3, n_action_steps=3
    )
    relative = setup.with_relative_stats(config, data, {})
    assert relative.stats["observation.state"] is data.stats["observation.state"]
    assert not np.allclose(relative.stats["action"]["mean"], data.stats["action"]["mean"])
    with pytest.raises(ConfigError, match="use_relative_actions=true needs the state"):
        setup.with_relative_stats(config, data, {"observation.state": "observation.other"})


def test_a_missing_camera_comes_with_the_closest_name() -> None:
    inputs = {"observation.images.bb": IMAGE, "observation.state": STATE}
    with pytest.raises(ConfigError) as caught:
        setup.fit_config(EO1Config(input_features=inputs), FEATURES, CPU)
    assert '--rename_map=\'{"observation.images.b": "observation.images.bb"}\'' in str(caught.value)


def test_a_dataset_without_actions_is_refused() -> None:
    with pytest.raises(ConfigError, match="the dataset has no feature 'action'"):
        setup.fit_config(EO1Config(), {"observation.state": STATE}, CPU)


def test_episodes_are_held_out_per_task() -> None:
    meta = load_metadata("a", ROOT)
    train, held_out = setup.held_out_split(meta, None, 0.4)
    assert train is not None
    assert sorted(train + held_out) == list(range(meta.total_episodes))
    assert held_out
    assert setup.held_out_split(meta, [1], 0.0) == ([1], [])
    with pytest.raises(ConfigError, match="holds nothing out"):
        setup.held_out_split(meta, [1], 0.4)


def test_imagenet_s_statistics_replace_those_of_cameras_only() -> None:
    meta = load_metadata("a", ROOT)
    own = setup.training_stats(meta, _flags(use_imagenet_stats=False))
    replaced = setup.training_stats(meta, _flags())
    for camera in meta.camera_keys:
        assert replaced[camera]["mean"].ravel() == pytest.approx([0.485, 0.456, 0.406])
        assert replaced[camera]["mean"].shape == (3, 1, 1)
        assert np.array_equal(replaced[camera]["min"], own[camera]["min"])
    assert np.array_equal(replaced["action"]["mean"], own["action"]["mean"])


def test_a_seed_is_drawn_when_none_is_given() -> None:
    seed = setup.seed_everything(None)
    first = torch.rand(1).item()
    assert setup.seed_everything(seed) == seed
    assert torch.rand(1).item() == first


def test_a_rename_of_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"names 'observation.stat'.*Did you mean"):
        setup.check_rename_map({"observation.stat": "x"}, {"observation.state": {}})


def test_opening_data_gives_action_chunks(tmp_path: Path) -> None:
    data = setup.open_data(_flags(), chunk_size=3)
    batch = data.train.get_batch([0, 1])
    assert batch["action"].shape[:2] == (2, 3)
    assert batch["action_is_pad"].shape == (2, 3)
    assert batch[data.train.meta.camera_keys[0]].dtype == torch.uint8
