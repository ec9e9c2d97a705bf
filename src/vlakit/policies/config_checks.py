# SPDX-License-Identifier: Apache-2.0
"""Checks of settings that more than one policy has."""

from __future__ import annotations

from typing import Any, Literal

from vlakit.errors import ConfigError, did_you_mean
from vlakit.features import FeatureType, PolicyFeature


def expect(condition: bool, config: Any, name: str, expected: str) -> None:
    """Raise ConfigError, with the flag and what it takes, when a condition does not hold."""
    if not condition:
        raise ConfigError(
            f"--policy.{name}={getattr(config, name)}; expected {expected}. Correct the value."
        )


def resolve_recompute(config: Any) -> Literal["none", "layer", "selective"]:
    """Return what the backward pass computes anew, from the flag of LeRobot and ours together.

    Raises:
        ConfigError: they contradict one another, or torch.compile makes the choice itself.
    """
    chosen = config.activation_checkpointing
    if config.gradient_checkpointing and chosen in ("none", "selective"):
        raise ConfigError(
            f"--policy.gradient_checkpointing=true means --policy.activation_checkpointing=layer, "
            f"but it is {chosen}. Give --policy.gradient_checkpointing=false with it."
        )
    if chosen == "selective" and config.compile_model:
        raise ConfigError(
            "--policy.activation_checkpointing=selective with --policy.compile_model=true: the "
            "compiler chooses itself which results of a layer it keeps. Give "
            "--policy.activation_checkpointing=none or layer."
        )
    return chosen or ("layer" if config.gradient_checkpointing else "none")


def check_chunk(config: Any) -> None:
    """Check that a chunk holds the actions that are to be executed.

    Raises:
        ConfigError: it does not.
    """
    if config.n_action_steps > config.chunk_size:
        raise ConfigError(
            f"--policy.n_action_steps={config.n_action_steps} must be between 1 and "
            f"--policy.chunk_size={config.chunk_size}: a chunk holds only that many actions."
        )


def check_normalization(config: Any) -> None:
    """Check the keys of `normalization_mapping`.

    Raises:
        ConfigError: one is no type of feature, with the nearest.
    """
    kinds = [kind.value for kind in FeatureType]
    for kind in config.normalization_mapping:
        if kind not in kinds:
            raise ConfigError(
                f"--policy.normalization_mapping has {kind!r}; expected types of features "
                f"({', '.join(kinds)}).{did_you_mean(kind, kinds)}"
            )


def check_vector(what: str, feature: PolicyFeature | None) -> None:
    """Check that a state or action has one axis.

    Raises:
        ConfigError: it has another number of them.
    """
    if feature is not None and len(feature.shape) != 1:
        raise ConfigError(
            f"the {what} feature has shape {list(feature.shape)}; expected one axis. "
            f"Flatten the {what} in the dataset."
        )
