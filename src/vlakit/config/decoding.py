# SPDX-License-Identifier: Apache-2.0
"""From plain values to a dataclass, with one line of our own for whatever draccus refuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import draccus
from draccus.utils import DecodingError, DraccusException

from vlakit.config.accepted_keys import clean_keys
from vlakit.config.raw_values import has_key
from vlakit.config.schema import (
    TYPE_KEY,
    field_types,
    is_choice,
    nested_type,
    selected_class,
    walk_flags,
)
from vlakit.errors import ConfigError, VlakitError, did_you_mean

T = TypeVar("T")


def decode(cls: type[T], raw: Mapping[str, Any], *, source: str = "the configuration") -> T:
    """Return the dataclass that `raw` describes.

    Args:
        cls: A dataclass, or a family of them (`raw` then names one by `type`).
        raw: Nested plain values, as JSON gives them.
        source: Where the values come from, for messages.

    Raises:
        ConfigError: A key is unknown or a value does not fit its field.
    """
    return decode_clean(cls, clean_keys(cls, raw, source=source), f"in {source}: ")


def decode_clean(cls: type[T], raw: Mapping[str, Any], where: str) -> T:
    """Return the dataclass of values whose keys are known.

    Args:
        cls: A dataclass, or a family of them.
        raw: Nested plain values.
        where: Put before messages, such as 'in train_config.json: '; empty for flags.

    Raises:
        ConfigError: A value is missing or does not fit its field.
    """
    _check_required(cls, raw, where)
    try:
        return draccus.decode(cls, dict(raw))
    except (DraccusException, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _explain(error, cls, raw, where) from error


def _check_required(cls: Any, raw: Mapping[str, Any], where: str, prefix: str = "") -> None:
    if is_choice(cls) and selected_class(cls, raw) is None:
        choices = sorted(cls.get_known_choices())
        given = raw.get(TYPE_KEY)
        hint = did_you_mean(str(given), choices)
        raise ConfigError(
            f"{where}{prefix}{TYPE_KEY}={given} is unknown: expected one of "
            f"{', '.join(choices)}.{hint}"
        )
    for flag in walk_flags(selected_class(cls, raw), raw, prefix):
        if flag.name in _missing_families(selected_class(cls, raw), raw, prefix):
            dashes = "" if where else "--"
            raise ConfigError(
                f"{where}{dashes}{flag.name} is required, one of {', '.join(flag.choices)}. "
                f"{flag.help}"
            )
        if flag.is_required and not has_key(raw, flag.name[len(prefix) :].split(".")):
            dashes = "" if where else "--"
            raise ConfigError(
                f"{where}{dashes}{flag.name} is required ({flag.type_name}). {flag.help}"
            )


def _missing_families(cls: type, raw: Mapping[str, Any], prefix: str) -> list[str]:
    """Return `<name>.type` of the families without a default that `raw` says nothing about."""
    return [
        f"{prefix}{field.name}.{TYPE_KEY}"
        for field in dataclasses.fields(cls)
        if is_choice(nested_type(field_types(cls).get(field.name)))
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and field.name not in raw
    ]


def _explain(error: BaseException, cls: Any, raw: Mapping[str, Any], where: str) -> ConfigError:
    """Return what went wrong inside draccus as one line.

    A check of ours is passed on as it is; a value that does not fit is shown with its flag, the
    value and what the flag takes.
    """
    keys: Sequence[str] = ()
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, VlakitError):
            return cause if isinstance(cause, ConfigError) else ConfigError(str(cause))
        if isinstance(cause, DecodingError) and len(cause.key_path) >= len(keys):
            keys = cause.key_path
        if not isinstance(cause, DraccusException) and not keys:
            return ConfigError(where + " ".join(str(cause).split()))
        error, cause = cause, cause.__cause__
    flags = {flag.name: flag for flag in walk_flags(selected_class(cls, raw), raw)}
    dashes = "" if where else "--"
    for length in range(len(keys), 0, -1):
        flag = flags.get(".".join(keys[:length]))
        if flag is None:
            continue
        value: Any = raw
        for key in keys[:length]:
            value = value[key]
        expected = f"one of {', '.join(flag.choices)}" if flag.choices else flag.type_name
        hint = did_you_mean(str(value), flag.choices)
        return ConfigError(f"{where}{dashes}{flag.name}={value}: expected {expected}.{hint}")
    return ConfigError(where + " ".join(str(error).split()))
