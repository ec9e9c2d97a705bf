# SPDX-License-Identifier: Apache-2.0
"""Where our flags and LeRobot's differ: keys only it has, keys only we have, keys not built yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vlakit.errors import ConfigError, did_you_mean

OWN_KEYS = (
    "ema",
    "accelerator",
    "fused_optimizer",
    "profile",
    "profile_steps",
    "dataset.cache_frames",
    "dataset.frame_cache",
    "dataset.frame_cache_dir",
)
"""Flags of ours that LeRobot 0.6.1 lacks: kept out of `train_config.json`."""

SHARED_ENV_KEYS = ("type", "task", "fps")
"""Keys of `env` that mean the same to LeRobot; the rest of ours goes to `vlakit_config.json`."""

JOB = {
    "target": None,
    "image": "huggingface/lerobot-gpu:latest",
    "timeout": "2d",
    "detach": False,
    "tags": [],
}

LEROBOT_ONLY: dict[str, Any] = {
    "reward_model": None,
    "peft": None,
    "job": JOB,
    "save_checkpoint_to_hub": False,
    "sample_weighting": None,
    "checkpoint_path": None,
}
"""What `train_config.json` holds besides our flags, so that it is whole for LeRobot 0.6.1."""

NOT_BUILT: dict[str, Any] = {
    "peft": None,
    "job": JOB,
    "save_checkpoint_to_hub": False,
    "sample_weighting": None,
    "reward_model": None,
    "use_rabc": False,
    "checkpoint_format": "safetensors",
    "dataset.repo_type": "dataset",
    "dataset.depth_output_unit": "mm",
    "dataset.exclude_episodes": None,
    "parallelism": {
        "dp_replicate": 1,
        "dp_shard": 1,
        "context_parallel": {"ring_degree": 1, "ulysses_degree": 1},
        "cfg_parallel": 1,
    },
    "accelerator.gradient_accumulation": {"steps": 1},
    "accelerator.grad_scaler": {
        "init_scale": 65536.0,
        "growth_factor": 2.0,
        "backoff_factor": 0.5,
        "growth_interval": 2000,
    },
    "accelerator.fsdp": {
        "reshard_after_forward": True,
        "wrap_modules": None,
        "min_num_params": None,
        "cpu_offload": False,
        "ignored_modules": None,
    },
    "accelerator.ddp": {
        "find_unused_parameters": True,
        "gradient_as_bucket_view": False,
        "static_graph": False,
    },
    "accelerator.compile": {
        "enabled": False,
        "backend": "inductor",
        "mode": None,
        "regional": True,
    },
    "accelerator.activation_checkpointing": {"mode": "NONE"},
}
"""LeRobot's flags (0.6.1 and 0.6.2) that vlakit train has not built: only these values pass."""

INSTEAD = {
    "accelerator.compile.enabled": " Use --policy.compile_model=true.",
    "accelerator.compile.mode": " Use --policy.compile_mode.",
    "accelerator.activation_checkpointing.mode": " Use --policy.activation_checkpointing=layer.",
    "dataset.exclude_episodes": " List the others in --dataset.episodes.",
}


def not_built_flags() -> dict[str, str]:
    """Return every name of `NOT_BUILT`, groups included, with an empty help text."""
    return dict.fromkeys(_names(NOT_BUILT), "")


def _names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from _names(value, f"{prefix}{key}.")


def take_out_not_built(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the raw values without those of `NOT_BUILT`, after checking that they are defaults.

    Raises:
        ConfigError: One of them has another value: it would be ignored.
    """
    groups = {name.rpartition(".")[0] for name in NOT_BUILT}
    remaining = {key: dict(value) if key in groups and isinstance(value, Mapping) else value
                 for key, value in raw.items()}  # fmt: skip
    for name, default in NOT_BUILT.items():
        group, _, key = name.rpartition(".")
        holder = remaining.get(group, {}) if group else remaining
        if isinstance(holder, dict) and key in holder:
            _check_default(name, holder.pop(key), default)
    return remaining


def _check_default(name: str, value: Any, default: Any) -> None:
    if isinstance(value, Mapping) and isinstance(default, Mapping):
        for key, inner in value.items():
            if key not in default:
                raise ConfigError(f"unknown flag --{name}.{key}.{did_you_mean(key, default)}")
            _check_default(f"{name}.{key}", inner, default[key])
    elif value != default and not (name == "job.target" and value == "local"):
        shown = default if default is not None else "null"
        raise ConfigError(
            f"--{name}={value} is not supported yet: only {shown} is.{INSTEAD.get(name, '')}"
        )
