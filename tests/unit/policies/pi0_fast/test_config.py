# SPDX-License-Identifier: Apache-2.0
"""Settings: LeRobot's fields and order, what the variant decides, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fixtures_root import FIXTURE_ROOT
from vlakit.errors import ConfigError
from vlakit.features import FeatureType, PolicyFeature
from vlakit.policies.config import PolicyConfig, register_configs
from vlakit.policies.pi0_fast import PI0FastConfig, PI0FastPolicy

RECORDED = FIXTURE_ROOT / "pi0_fast" / "overfit" / "checkpoint" / "config.json"
CAMERA = PolicyFeature(FeatureType.VISUAL, (3, 56, 56))
LEROBOT_DEFAULTS = {
    "paligemma_variant": "gemma_2b",
    "action_expert_variant": "gemma_300m",
    "dtype": "float32",
    "chunk_size": 50,
    "n_action_steps": 50,
    "max_state_dim": 32,
    "max_action_dim": 32,
    "max_action_tokens": 256,
    "use_relative_actions": False,
    "relative_exclude_joints": ["gripper"],
    "action_feature_names": None,
    "rtc_config": None,
    "image_resolution": [224, 224],
    "empty_cameras": 0,
    "tokenizer_max_length": 200,
    "text_tokenizer_name": "google/paligemma-3b-pt-224",
    "action_tokenizer_name": "lerobot/fast-action-tokenizer",
    "temperature": 0.0,
    "max_decoding_steps": 256,
    "fast_skip_tokens": 128,
    "validate_action_token_prefix": True,
    "use_kv_cache": True,
    "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
    "gradient_checkpointing": False,
    "compile_model": False,
    "compile_mode": "max-autotune",
    "optimizer_lr": 2.5e-5,
    "optimizer_betas": [0.9, 0.95],
    "optimizer_eps": 1e-8,
    "optimizer_weight_decay": 0.01,
    "optimizer_grad_clip_norm": 1.0,
    "scheduler_warmup_steps": 1000,
    "scheduler_decay_steps": 30000,
    "scheduler_decay_lr": 2.5e-6,
}


def test_fields_order_and_defaults_are_lerobots() -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    entries = PI0FastConfig().to_json()
    assert list(entries) == list(recorded)
    assert {name: entries[name] for name in LEROBOT_DEFAULTS} == LEROBOT_DEFAULTS
    register_configs()
    assert PolicyConfig.from_json(recorded).to_json() == recorded


def test_own_settings_are_written_only_where_they_matter() -> None:
    plain = PI0FastConfig()
    changed = plain.override({"token_layout": "openpi", "allow_truncation": True})
    assert changed.to_json().keys() - plain.to_json().keys() == {"token_layout", "allow_truncation"}
    assert PI0FastConfig.from_json(changed.to_json()) == changed
    assert changed.override({"token_layout": "lerobot", "allow_truncation": False}) == plain


def test_tiny_takes_its_own_tokenizer_size_and_random_weights() -> None:
    tiny = PI0FastConfig(paligemma_variant="tiny")
    assert tiny.text_tokenizer_name == tiny.backbone == "tiny-paligemma"
    assert tiny.image_resolution == (84, 84)
    smaller = tiny.override({"paligemma_config": {"vision_config": {"image_size": 56}}})
    assert smaller.image_resolution == (84, 84), "a setting that is there stays"
    sizes = {"vision_config": {"image_size": 56}}
    fresh = PI0FastConfig(paligemma_variant="tiny", paligemma_config=sizes)
    assert fresh.image_resolution == (56, 56)
    given = PI0FastConfig(paligemma_variant="tiny", text_tokenizer_name="mine", vlm_base="random")
    assert (given.text_tokenizer_name, given.backbone) == ("mine", "random")


def test_backbones_of_the_variants() -> None:
    assert PI0FastConfig().backbone == "google/paligemma-3b-pt-224"
    with pytest.raises(ConfigError, match=r"gemma_300m has no published.*vlm_base=random"):
        _ = PI0FastConfig(paligemma_variant="gemma_300m").backbone


def test_absent_features_are_added_as_lerobot_adds_them() -> None:
    config = PI0FastConfig(input_features={"observation.images.a": CAMERA}, empty_cameras=2)
    filled = config.with_default_features()
    assert list(filled.input_features) == [
        "observation.images.a",
        "observation.images.empty_camera_0",
        "observation.images.empty_camera_1",
        "observation.state",
    ]
    assert filled.input_features["observation.images.empty_camera_1"].shape == (3, 224, 224)
    assert (filled.action_dim, filled.state_feature) == (
        32,
        PolicyFeature(FeatureType.STATE, (32,)),
    )
    assert filled.with_default_features() == filled
    assert filled.optional_inputs == {f"observation.images.empty_camera_{i}" for i in (0, 1)}
    lenient = filled.override({"allow_missing_cameras": True})
    assert lenient.optional_inputs == set(lenient.image_features)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunk_size": 4}, "n_action_steps=50 must be between 1 and --policy.chunk_size=4"),
        ({"max_action_tokens": 0}, "max_action_tokens=0; expected at least 1"),
        ({"tokenizer_max_length": 0}, "tokenizer_max_length=0; expected at least 1"),
        ({"empty_cameras": -1}, "empty_cameras=-1; expected 0 or more"),
        ({"fast_skip_tokens": -1}, "fast_skip_tokens=-1; expected 0 or more"),
        ({"n_obs_steps": 2}, "n_obs_steps=2; expected 1"),
        ({"temperature": -0.1}, "temperature=-0.1; expected 0 or a positive number"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"image_resolution": [0, 224]}, "image_resolution=.*two positive sizes"),
        ({"normalization_mapping": {"STATES": "MEAN_STD"}}, "Did you mean 'STATE'"),
        ({"paligemma_variant": "gemma_2B"}, "Did you mean 'gemma_2b'"),
        ({"dtype": "float16"}, "dtype=float16"),
        ({"token_layout": "pi"}, "token_layout=pi"),
        ({"decoding": "constraint"}, "Did you mean 'constrained'"),
        ({"decodin": "reference"}, "Did you mean 'decoding'"),
    ],
)
def test_wrong_settings_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PI0FastConfig().override(changes)


def test_real_time_chunking_is_read_and_refused_when_a_policy_is_to_run_it() -> None:
    stored = PI0FastConfig(paligemma_variant="tiny", rtc_config={"enabled": True})
    assert PI0FastConfig.from_json(stored.to_json()) == stored
    with pytest.raises(ConfigError, match=r"--policy.rtc_config=null"):
        PI0FastPolicy(stored, device="meta")
    for value in (None, {"enabled": False}):
        PI0FastPolicy(stored.override({"rtc_config": None}).override({"rtc_config": value}),
                      device="meta")  # fmt: skip


def test_a_state_or_action_has_one_axis() -> None:
    feature = PolicyFeature(FeatureType.ACTION, (2, 3))
    with pytest.raises(ConfigError, match=r"action feature has shape \[2, 3\]"):
        PI0FastConfig(output_features={"action": feature})


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
    config = PI0FastConfig(**changes)
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
    ],
)
def test_flags_of_recomputing_that_contradict_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        PI0FastConfig().override(changes)
