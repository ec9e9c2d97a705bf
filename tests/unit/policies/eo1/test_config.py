# SPDX-License-Identifier: Apache-2.0
"""EO-1's settings: LeRobot's names and defaults, and checks that name the flag."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fixtures_root import FIXTURE_ROOT, cases
from vlakit.errors import ConfigError
from vlakit.features import FeatureType, NormalizationMode, PolicyFeature
from vlakit.policies.config import PolicyConfig
from vlakit.policies.eo1.config import EO1Config

LEROBOT_DEFAULTS: dict[str, Any] = {
    "type": "eo1",
    "n_obs_steps": 1,
    "input_features": {},
    "output_features": {},
    "device": None,
    "use_amp": False,
    "use_peft": False,
    "push_to_hub": True,
    "repo_id": None,
    "private": None,
    "tags": None,
    "license": None,
    "pretrained_path": None,
    "pretrained_revision": None,
    "vlm_base": "Qwen/Qwen2.5-VL-3B-Instruct",
    "vlm_config": None,
    "image_min_pixels": 50176,
    "image_max_pixels": 100352,
    "use_fast_processor": False,
    "chunk_size": 8,
    "n_action_steps": 8,
    "max_state_dim": 32,
    "max_action_dim": 32,
    "num_denoise_steps": 10,
    "num_action_layers": 2,
    "action_act": "linear",
    "time_sampling_beta_alpha": 1.5,
    "time_sampling_beta_beta": 1.0,
    "time_sampling_scale": 0.999,
    "time_sampling_offset": 0.001,
    "min_period": 0.004,
    "max_period": 4.0,
    "supervise_padding_action_dims": True,
    "supervise_padding_actions": True,
    "dtype": "auto",
    "force_fp32_autocast": True,
    "attn_implementation": None,
    "gradient_checkpointing": False,
    "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
    "optimizer_lr": 1e-4,
    "optimizer_betas": [0.9, 0.999],
    "optimizer_eps": 1e-8,
    "optimizer_weight_decay": 0.1,
    "optimizer_grad_clip_norm": 1.0,
    "scheduler_warmup_steps": 900,
    "scheduler_decay_steps": 30000,
    "scheduler_decay_lr": 0.0,
}


def test_names_order_and_defaults_are_lerobot_s() -> None:
    own = EO1Config().to_json()
    assert own == LEROBOT_DEFAULTS
    assert list(own) == list(LEROBOT_DEFAULTS)


@pytest.mark.parametrize("name", cases("eo1"))
def test_lerobot_s_file_round_trips(name: str) -> None:
    path = FIXTURE_ROOT / "eo1" / name / "checkpoint" / "config.json"
    text = path.read_text(encoding="utf-8")
    config = PolicyConfig.from_json(json.loads(text))
    assert isinstance(config, EO1Config)
    assert json.dumps(config.to_json(), indent=4, ensure_ascii=False) == text


def test_json_values_become_typed_ones() -> None:
    config = PolicyConfig.from_json(
        {
            "type": "eo1",
            "input_features": {"observation.images.top": {"type": "VISUAL", "shape": [3, 8, 9]}},
            "normalization_mapping": {"STATE": "QUANTILES"},
            "optimizer_betas": [0.8, 0.9],
        }
    )
    assert isinstance(config, EO1Config)
    top = PolicyFeature(FeatureType.VISUAL, (3, 8, 9))
    assert config.image_features == {"observation.images.top": top}
    assert config.normalization_mapping == {"STATE": NormalizationMode.QUANTILES}
    assert config.optimizer_betas == (0.8, 0.9)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"type": "eo1", "chunk_sise": 8}, "chunk_sise.*Did you mean.*chunk_size"),
        ({"type": "eo2"}, "policy type 'eo2' is unknown.*Did you mean 'eo1'"),
        ({"chunk_size": 8}, "of type None"),
        ({"type": "eo1", "chunk_size": "many"}, "chunk_size"),
        ({"type": "eo1", "dtype": "fp16"}, "dtype"),
    ],
)
def test_wrong_files_are_refused(entries: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PolicyConfig.from_json(entries)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"chunk_size": 4}, r"n_action_steps=8 must be between 1 and --policy.chunk_size=4"),
        ({"chunk_size": 0, "n_action_steps": 0}, "chunk_size=0; expected at least 1"),
        ({"n_obs_steps": 2}, "n_obs_steps=2; expected 1"),
        ({"num_denoise_steps": 0}, "num_denoise_steps=0; expected at least 1"),
        ({"image_max_pixels": 100}, "image_max_pixels=100 must be at least"),
        ({"max_period": 0.001}, "max_period=0.001; expected more than"),
        ({"time_sampling_beta_alpha": 0.0}, "time_sampling_beta_alpha=0.0; expected a positive"),
        (
            {"output_features": {"action": PolicyFeature(FeatureType.ACTION, (40,))}},
            "the action has 40 dimensions, more than --policy.max_action_dim=32",
        ),
        (
            {"input_features": {"observation.state": PolicyFeature(FeatureType.STATE, (33,))}},
            "the state has 33 dimensions, more than --policy.max_state_dim=32",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EO1Config(**settings)


def test_overrides_merge_dictionaries_and_check_names() -> None:
    config = EO1Config().override({"chunk_size": 16, "normalization_mapping": {"STATE": "MIN_MAX"}})
    assert config.chunk_size == 16
    assert config.normalization_mapping["STATE"] is NormalizationMode.MIN_MAX
    assert config.normalization_mapping["ACTION"] is NormalizationMode.MEAN_STD
    with pytest.raises(ConfigError, match=r"'vlm_bas' is no setting.*Did you mean 'vlm_base'"):
        config.override({"vlm_bas": "x"})


def test_absent_features_have_the_padded_widths() -> None:
    config = EO1Config(max_action_dim=9).with_default_features()
    assert config.input_features["observation.state"].shape == (32,)
    assert config.action_dim == 9
    assert list(config.input_features) == ["observation.state"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "none"),
        ({"gradient_checkpointing": True}, "layer"),
        ({"activation_checkpointing": "layer"}, "layer"),
        ({"activation_checkpointing": "layer", "gradient_checkpointing": True}, "layer"),
        ({"activation_checkpointing": "selective"}, "selective"),
        ({"activation_checkpointing": "none", "compile_model": True}, "none"),
    ],
)
def test_what_is_recomputed_follows_from_two_flags(changes: dict[str, Any], expected: str) -> None:
    config = EO1Config(**changes)
    assert config.recompute == expected
    assert "activation_checkpointing" not in config.to_json(), "LeRobot reads the file"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"gradient_checkpointing": True, "activation_checkpointing": "none"},
            "means --policy.activation_checkpointing=layer, but it is none. Give "
            "--policy.gradient_checkpointing=false",
        ),
        (
            {"gradient_checkpointing": True, "activation_checkpointing": "selective"},
            "but it is selective",
        ),
        (
            {"compile_model": True, "activation_checkpointing": "selective"},
            "Give --policy.activation_checkpointing=none or layer",
        ),
        ({"activation_checkpointing": "some"}, "activation_checkpointing=some"),
        ({"compile_model": True, "pack_sequences": True}, "other segments at every step"),
    ],
)
def test_flags_of_recomputing_that_contradict_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        EO1Config().override(changes)
