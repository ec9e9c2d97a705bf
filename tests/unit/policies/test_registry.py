# SPDX-License-Identifier: Apache-2.0
"""Policies are found by type, and settings are read from either layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlakit.errors import CheckpointError, ConfigError
from vlakit.policies.eo1 import EO1Config, EO1Policy
from vlakit.policies.registry import policy_class
from vlakit.policies.stored_config import read_policy_config


def test_policy_is_found_by_its_type() -> None:
    assert policy_class("eo1") is EO1Policy
    with pytest.raises(ConfigError, match=r"'eo' is unknown.*Did you mean 'eo1'"):
        policy_class("eo")


def test_settings_are_read_from_a_folder(tmp_path: Path) -> None:
    EO1Config(chunk_size=16).save(tmp_path)
    config = read_policy_config(tmp_path)
    assert config == EO1Config(chunk_size=16)


def test_settings_of_another_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(CheckpointError, match=r"'llama'.*Give a policy checkpoint"):
        read_policy_config(tmp_path)
