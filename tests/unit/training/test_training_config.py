# SPDX-License-Identifier: Apache-2.0
"""The flags of `vlakit train`: checks, LeRobot's file, what is not built."""

from __future__ import annotations

import importlib.util
import json
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vlakit.config import decode, encode
from vlakit.datasets.config import DatasetConfig
from vlakit.environments.config import MetaworldEnvConfig
from vlakit.errors import ConfigError
from vlakit.policies.config import PolicyConfig
from vlakit.policies.eo1.config import EO1Config
from vlakit.policies.pi0_fast.config import PI0FastConfig
from vlakit.training.config import EmaConfig, TrainFlags, split_by_reader
from vlakit.training.lerobot_keys import LEROBOT_ONLY, take_out_not_built
from vlakit.training.optimizer_config import preset_optimizer, preset_scheduler

ROOT = Path(__file__).resolve().parents[3]
LEROBOT_0_4_KEYS: dict[str, Any] = {
    "eval_freq": 5,
    "use_rabc": False,
    "rabc_progress_path": None,
    "rabc_kappa": 0.01,
    "rabc_epsilon": 1e-6,
    "rabc_head_mode": "sparse",
    "peft": None,
}
"""What LeRobot 0.4.4 writes to train_config.json and 0.6.1 does not."""


def flags(**changes: Any) -> TrainFlags:
    settings = {
        "dataset": DatasetConfig(repo_id="a"),
        "policy": EO1Config(push_to_hub=False),
        **changes,
    }
    return TrainFlags(**settings)


@pytest.fixture(scope="module")
def flags_page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("page", ROOT / "tools" / "make_flags_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_difference_to_lerobot_s_flags_has_a_reason(flags_page: ModuleType) -> None:
    assert flags_page.differences() == []


def test_the_flags_page_is_up_to_date(flags_page: ModuleType) -> None:
    assert flags_page.PAGE.read_text(encoding="utf-8") == flags_page.page()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": None}, "no policy is given: add --policy.type=eo1"),
        ({"policy": EO1Config()}, "--policy.repo_id is missing: add --policy.push_to_hub=false"),
        ({"steps": 0}, "--steps=0 must be 1 or more"),
        ({"batch_size": 0}, "--batch_size=0 must be 1 or more"),
        ({"num_workers": -1}, "--num_workers=-1 must be 0 or more"),
        ({"eval_steps": 5}, "--eval_steps=5 needs held-out episodes: add --dataset.eval_split"),
        ({"use_policy_training_preset": False}, "needs both --optimizer.type=... and"),
        ({"policy": EO1Config(push_to_hub=False, use_peft=True)}, "use_peft=true is not supported"),
        (
            {"policy": EO1Config(push_to_hub=False, use_amp=True)},
            "use_amp=true would be ignored in training: leave it out, and give "
            "--accelerator.mixed_precision=bf16",
        ),
        ({"profile_steps": 0}, "--profile_steps=0 must be 1 or more"),
        (
            {"policy": EO1Config(repo_id="me/policy", license="mit")},
            "--policy.license are not written to the hub yet",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        flags(**changes)
    assert message in str(caught.value)


def test_name_and_folder_follow_from_policy_and_simulator() -> None:
    env = MetaworldEnvConfig(task="reach-v3")
    assert flags(env=env).name() == "metaworld_eo1"
    path = flags().output_path(datetime(2026, 11, 21, 12, 30, 5))
    assert path == Path("outputs/train/2026-11-21/12-30-05_eo1")


def test_train_config_holds_exactly_lerobot_s_keys(flags_page: ModuleType) -> None:
    policy = EO1Config(push_to_hub=False)
    complete = flags(
        policy=policy,
        env=MetaworldEnvConfig(task="reach-v3"),
        optimizer=preset_optimizer(policy),
        scheduler=preset_scheduler(policy),
        ema=EmaConfig(enable=True),
    )
    shared, own = split_by_reader(complete)
    lerobot = set(flags_page.theirs())
    for name in _leaves(shared):
        assert any(known == name or name.startswith(f"{known}.") for known in lerobot) or (
            name.split(".")[0] in LEROBOT_ONLY
        ), name
    top = {name.split(".")[0] for name in lerobot} | set(LEROBOT_ONLY)
    assert set(shared) == top
    assert own["ema"] == {"enable": True, "decay": None}
    assert own["accelerator"] == {"mixed_precision": None}
    assert "policy" not in own
    assert "cache_frames" in own["dataset"]
    assert own["env"]["type"] == shared["env"]["type"] == "metaworld"


@pytest.mark.parametrize(("value", "is_right"), [("bf16", True), ("no", True), ("fp16", False)])
def test_mixed_precision_takes_lerobot_s_values(value: str, is_right: bool) -> None:
    raw = encode(flags()) | {"accelerator": {"mixed_precision": value}}
    if is_right:
        assert decode(TrainFlags, raw).accelerator.mixed_precision == value
        return
    with pytest.raises(ConfigError, match="mixed_precision"):
        decode(TrainFlags, raw)


@pytest.mark.parametrize("config", [EO1Config, PI0FastConfig])
def test_how_a_policy_computes_stands_in_our_file_only(config: type[PolicyConfig]) -> None:
    policy = config(push_to_hub=False).override({"activation_checkpointing": "selective"})
    shared, own = split_by_reader(flags(policy=policy))
    assert "activation_checkpointing" not in shared["policy"]
    assert own["policy"] == {"activation_checkpointing": "selective"}


def _leaves(values: dict[str, Any], prefix: str = "") -> list[str]:
    names = []
    for key, value in values.items():
        is_group = isinstance(value, dict) and bool(value)
        names += _leaves(value, f"{prefix}{key}.") if is_group else [prefix + key]
    return names


def test_train_config_reads_back_as_the_same_flags() -> None:
    before = flags(rename_map={"a": "b"}, seed=3)
    shared, _ = split_by_reader(before)
    assert decode(TrainFlags, take_out_not_built(json.loads(json.dumps(shared)))) == before


def test_keys_of_lerobot_0_4_are_taken() -> None:
    content = encode(flags()) | LEROBOT_0_4_KEYS
    content.pop("env_eval_freq")
    assert decode(TrainFlags, take_out_not_built(content)) == flags(env_eval_freq=5)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"peft": {"r": 8}}, "--peft={'r': 8} is not supported yet: only null is."),
        ({"job": {"target": "a100"}}, "--job.target=a100 is not supported yet"),
        ({"accelerator": {"compile": {"enabled": True}}}, "Use --policy.compile_model=true."),
        (
            {"accelerator": {"activation_checkpointing": {"mode": "FULL"}}},
            "Use --policy.activation_checkpointing=layer.",
        ),
        ({"dataset": {"exclude_episodes": [1]}}, "List the others in --dataset.episodes."),
        ({"accelerator": {"fsdp": {"cpu": 1}}}, "unknown flag --accelerator.fsdp.cpu."),
        ({"use_rabc": True}, "--use_rabc=True is not supported yet"),
    ],
)
def test_what_is_not_built_is_refused_unless_it_is_the_default(
    raw: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        take_out_not_built(raw)
    assert message in str(caught.value)


def test_defaults_of_what_is_not_built_are_taken_out() -> None:
    raw = {
        "steps": 3,
        "job": {"target": "local", "detach": False},
        "accelerator": {"mixed_precision": "no", "fsdp": {"cpu_offload": False}},
        "dataset": {"repo_id": "a", "repo_type": "dataset"},
    }
    assert take_out_not_built(raw) == {
        "steps": 3,
        "accelerator": {"mixed_precision": "no"},
        "dataset": {"repo_id": "a"},
    }
