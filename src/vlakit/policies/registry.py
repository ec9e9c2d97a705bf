# SPDX-License-Identifier: Apache-2.0
"""From a policy type to its classes, loaded when they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vlakit.errors import ConfigError, did_you_mean
from vlakit.policies.config import POLICIES, PolicyConfig

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


def check_data(config: PolicyConfig, preprocess: Any, sample: Mapping[str, Any]) -> list[str]:
    """Let a policy look at a sample of the data that it is to be trained on.

    Args:
        config: the policy's settings.
        preprocess: its preprocessor.
        sample: a raw batch without pictures, under the dataset's names.

    Returns:
        What the user should know.

    Raises:
        VlakitError: it cannot be trained on such data.
    """
    package, _ = POLICIES[config.type]
    return importlib.import_module(f"{package}.startup").check_data(config, preprocess, sample)
