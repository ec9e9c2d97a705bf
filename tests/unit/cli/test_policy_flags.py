# SPDX-License-Identifier: Apache-2.0
"""`--policy.path`: a checkpoint's settings with flags over them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlakit.cli.policy_flags import with_policy_path
from vlakit.errors import CheckpointError, ConfigError
from vlakit.features import NormalizationMode
from vlakit.policies.eo1.config import EO1Config


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    modes = {"STATE": NormalizationMode.MIN_MAX, "ACTION": NormalizationMode.MIN_MAX}
    EO1Config(
        chunk_size=5, n_action_steps=5, device="cuda", repo_id="someone/else",
        normalization_mapping=modes,
    ).save(tmp_path)  # fmt: skip
    return tmp_path


def test_flags_win_over_the_checkpoint(checkpoint: Path) -> None:
    raw = with_policy_path({"steps": 3, "policy": {"path": str(checkpoint), "n_action_steps": 2}})
    assert raw["steps"] == 3
    policy = raw["policy"]
    assert (policy["type"], policy["chunk_size"], policy["n_action_steps"]) == ("eo1", 5, 2)
    assert policy["pretrained_path"] == str(checkpoint)
    assert "path" not in policy


def test_a_dictionary_is_merged_entry_by_entry(checkpoint: Path) -> None:
    given = {"path": str(checkpoint), "normalization_mapping": {"ACTION": "MEAN_STD"}}
    mapping = with_policy_path({"policy": given})["policy"]["normalization_mapping"]
    assert mapping == {"STATE": "MIN_MAX", "ACTION": "MEAN_STD"}


def test_device_and_hub_name_of_the_old_run_are_left_behind(checkpoint: Path) -> None:
    policy = with_policy_path({"policy": {"path": str(checkpoint)}})["policy"]
    assert "device" not in policy
    assert "repo_id" not in policy


def test_path_and_type_exclude_one_another(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="exclude one another: the checkpoint has a type"):
        with_policy_path({"policy": {"path": str(checkpoint), "type": "eo1"}})


def test_without_a_path_nothing_changes() -> None:
    raw = {"policy": {"type": "eo1"}}
    assert with_policy_path(raw) is raw


def test_a_path_that_is_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        with_policy_path({"policy": {"path": str(tmp_path / "nowhere")}})
