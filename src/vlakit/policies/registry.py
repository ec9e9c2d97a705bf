# SPDX-License-Identifier: Apache-2.0
"""From a policy type to its classes, loaded when they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlakit.checkpoints.hub import resolve
from vlakit.checkpoints.pretrained import read_config
from vlakit.errors import CheckpointError, ConfigError, did_you_mean
from vlakit.policies.config import (
    CONFIG_FILE,
    POLICIES,
    PolicyConfig,
    config_class,
    register_configs,
)

__all__ = [
    "POLICIES",
    "make_policy",
    "make_processors",
    "policy_class",
    "read_policy_config",
    "register_configs",
]

if TYPE_CHECKING:
    from vlakit.policies.base import Policy


def policy_class(kind: str) -> type[Policy]:
    """Return the policy of a type.

    Raises:
        ConfigError: when there is no such policy, with the nearest name.
    """
    if kind not in POLICIES:
        raise ConfigError(
            f"policy type {kind!r} is unknown; expected one of {', '.join(POLICIES)}."
            f"{did_you_mean(kind, POLICIES)}"
        )
    package, prefix = POLICIES[kind]
    return getattr(importlib.import_module(f"{package}.policy"), f"{prefix}Policy")


def make_policy(
    config: PolicyConfig, *, device: str | None = None, token: str | None = None
) -> Policy:
    """Return a policy with its weights.

    The weights come from `config.pretrained_path` when it is set; else the backbone comes from
    where the configuration says, and everything else is initialised at random.

    Args:
        config: its settings win over those stored in the checkpoint.
        device: overrides `config.device`.
        token: hub token for private repositories.
    """
    policy = policy_class(config.type)
    device = device or config.device
    if config.pretrained_path is not None:
        return policy.from_pretrained(
            config.pretrained_path,
            device=device,
            revision=config.pretrained_revision,
            token=token,
            config=config,
        )
    return policy.from_backbone(config, device=device, token=token)


def make_processors(
    config: PolicyConfig,
    stats: Mapping[str, Any] | None,
    *,
    rename_map: Mapping[str, str] | None = None,
) -> tuple[Any, Any]:
    """Return the preprocessor and the postprocessor of a new policy.

    Args:
        config: the policy's settings, features included.
        stats: dataset statistics by feature, such as `stats["action"]["mean"]`.
        rename_map: names of the dataset to those of the policy.
    """
    package, _ = POLICIES[config.type]
    make = importlib.import_module(f"{package}.processor").make_processors
    return make(config, stats, rename_map=rename_map)


def read_policy_config(
    path_or_repo_id: str | Path, *, revision: str | None = None, token: str | None = None
) -> PolicyConfig:
    """Return the settings stored in a checkpoint, LeRobot's layout or the EO-1 project's own.

    Raises:
        CheckpointError: when there is no configuration, or it is of neither layout.
    """
    folder = resolve(path_or_repo_id, revision=revision, token=token, patterns=[CONFIG_FILE])
    entries = read_config(folder)
    if "type" in entries:
        return PolicyConfig.from_json(entries, source=str(folder / CONFIG_FILE))
    kind = entries.get("model_type")
    if kind not in POLICIES:
        raise CheckpointError(
            f"{folder / CONFIG_FILE} has neither a policy 'type' nor a 'model_type' of "
            f"{', '.join(POLICIES)} (it says {kind!r}). Give a policy checkpoint."
        )
    upstream: Any = config_class(kind)
    return upstream.from_upstream(entries, source=str(path_or_repo_id))
