# SPDX-License-Identifier: Apache-2.0
"""Plain values from a command line and from files, dotted names as nested dictionaries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from draccus.cfgparsing import parse_string
from draccus.utils import DraccusException
from yaml import YAMLError

from vlakit.errors import ConfigError


def read_config_file(path: Path) -> dict[str, Any]:
    """Return the content of a YAML or JSON configuration file.

    Raises:
        ConfigError: The file does not exist or cannot be parsed.
    """
    if not path.is_file():
        raise ConfigError(f"--config_path={path} is not a file; give a YAML or JSON file.")
    try:
        text = path.read_text(encoding="utf-8")
        raw = json.loads(text) if path.suffix == ".json" else parse_string(text)
    except (ValueError, YAMLError, DraccusException) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be parsed: {reason}. Expected YAML or JSON.") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds a {type(raw).__name__}; expected keys with values.")
    return raw


def split_arguments(argv: Sequence[str]) -> list[tuple[str, str | None]]:
    """Return (name, text) of every flag; accepts `--name=value` and `--name value`.

    The text of a flag that stands alone is None: a boolean's is true, others lack their value.
    """
    pairs: list[tuple[str, str | None]] = []
    arguments = list(argv)
    while arguments:
        argument = arguments.pop(0)
        if argument in ("--help", "-h"):
            pairs.append(("help", "true"))
            continue
        if not argument.startswith("--") or argument == "--":
            raise ConfigError(f"{argument!r} is not a flag; flags look like --name=value.")
        name, equals, text = argument[2:].partition("=")
        if equals:
            pairs.append((name, text))
        elif not arguments or arguments[0].startswith("--"):
            pairs.append((name, None))
        else:
            pairs.append((name, arguments.pop(0)))
    return pairs


def _value(text: str) -> Any:
    try:
        return parse_string(text)
    except (YAMLError, DraccusException):
        return text  # text that is no YAML is text


def nested(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return the values of the flags, dotted names as dictionaries in dictionaries."""
    values: dict[str, Any] = {}
    for name, text in pairs:
        _put(values, name.split("."), _value(text))
    return values


def _put(values: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        if not isinstance(values.get(key), dict):
            values[key] = {}
        values = values[key]
    values[keys[-1]] = value


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` updated by `over`, dictionaries key by key."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merged(below, value) if both else value
    return result


def has_key(raw: Any, keys: Sequence[str]) -> bool:
    """Return whether nested values hold something under a dotted name, given in its parts."""
    for key in keys:
        if not isinstance(raw, Mapping) or key not in raw:
            return False
        raw = raw[key]
    return True
