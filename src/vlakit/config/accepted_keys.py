# SPDX-License-Identifier: Apache-2.0
"""Keys of configuration files: unknown ones are refused, unused ones of LeRobot left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlakit.config.schema import TYPE_KEY, field_types, nested_type, selected_class
from vlakit.errors import ConfigError, did_you_mean

ACCEPTED_UNUSED_KEYS: dict[str, dict[str, str]] = {
    "TrainFlags": {
        "checkpoint_path": "every version; set again when resuming",
        "rabc_epsilon": "0.4.4 and 0.5: reward-weighted training",
        "rabc_head_mode": "0.4.4 and 0.5: reward-weighted training",
        "rabc_kappa": "0.4.4 and 0.5: reward-weighted training",
        "rabc_progress_path": "0.4.4 and 0.5: reward-weighted training",
    },
    "EvalFlags": {"trust_remote_code": "0.6: environments whose code lies on the hub"},
    "EvalConfig": {
        "recording": "0.6: record rollouts as a dataset",
        "recording_private": "0.6: record rollouts as a dataset",
        "recording_repo_id": "0.6: record rollouts as a dataset",
    },
    "EmaConfig": {
        "inv_gamma": "0.6.2: the decay's warm-up",
        "max_decay": "0.6.2: the decay's warm-up",
        "max_value": "0.6.2: the decay's warm-up",
        "min_decay": "0.6.2: the decay's warm-up",
        "min_value": "0.6.2: the decay's warm-up",
        "power": "0.6.2: the decay's warm-up",
    },
    "EnvConfig": {
        "disable_env_checker": "every version",
        "features": "every version",
        "features_map": "every version",
        "max_parallel_tasks": "every version",
        "multitask_eval": "every version, Meta-World",
        "obs_type": "every version",
        "render_mode": "every version",
    },
    "LiberoEnvConfig": {
        "hard_reset": "0.6.1: worlds are always built anew",
        "is_libero_plus": "0.6.1: another benchmark",
    },
}
"""Keys that LeRobot 0.4 to 0.6.2 write to its files and vlakit does not use: class -> key -> why.

They are accepted in files, whatever their value where they cannot change the run; as flags they
are unknown.
"""

RENAMED_KEYS: dict[str, dict[str, str]] = {"TrainFlags": {"eval_freq": "env_eval_freq"}}
"""Keys of LeRobot 0.4 and 0.5 renamed since: read from files; as flags, refused by the new name."""


def clean_keys(
    cls: Any,
    raw: Mapping[str, Any],
    *,
    source: str,
    types: Mapping[str, Any] | None = None,
    extras: Mapping[str, str] | None = None,
    prefix: str = "",
) -> dict[str, Any]:
    """Return `raw` without the keys LeRobot writes and vlakit does not use.

    Args:
        cls: A dataclass or family of dataclasses.
        raw: Nested plain values of one file.
        source: The file, for messages.
        types: Values that decide the `type` of families when `raw` does not say it.
        extras: Dotted names that are allowed besides the fields.
        prefix: Dotted name of `raw` inside the file, with its dot.

    Raises:
        ConfigError: A key is unknown.
    """
    chosen = selected_class(cls, {**(types or {}), **raw})
    if chosen is None:
        return dict(raw)  # the missing or unknown type is reported by `_check_types`
    names = field_types(chosen)
    cleaned: dict[str, Any] = {}
    for given, value in raw.items():
        key = of_class(RENAMED_KEYS, chosen).get(given, given)
        if key == TYPE_KEY or prefix + key in (extras or {}):
            cleaned[key] = value
        elif key in names:
            inner = nested_type(names[key])
            deeper = (types or {}).get(key)
            if inner is not None and isinstance(value, Mapping):
                value = clean_keys(
                    inner,
                    value,
                    source=source,
                    types=deeper if isinstance(deeper, Mapping) else None,
                    extras=extras,
                    prefix=f"{prefix}{key}.",
                )
            cleaned[key] = value
        elif key not in of_class(ACCEPTED_UNUSED_KEYS, chosen):
            hint = did_you_mean(key, names)
            raise ConfigError(
                f"unknown key {prefix + key!r} in {source}.{hint} Remove it or correct its name."
            )
    return cleaned


def of_class(table: Mapping[str, Mapping[str, str]], cls: type) -> dict[str, str]:
    """Return the entries of a class and its bases in one of the tables above."""
    merged: dict[str, str] = {}
    for base in cls.__mro__:
        merged |= table.get(base.__name__, {})
    return merged
