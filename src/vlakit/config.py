# SPDX-License-Identifier: Apache-2.0
"""Configuration dataclasses to and from flags and JSON, in LeRobot's syntax.

    argv ─┐
          ├─ merged raw values ─ unknown names refused ─ draccus ─ dataclass ─ encode ─ JSON
    file ─┘

draccus turns plain values into typed ones and runs the dataclasses' own checks. Everything a user
sees is said here: an unknown name with the nearest known one, a value that does not fit its field,
and the message of a check that draccus would hide behind "Couldn't instantiate class".
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import draccus
from draccus.cfgparsing import parse_string
from draccus.utils import DecodingError, DraccusException
from yaml import YAMLError

from vlakit.config_keys import ACCEPTED_UNUSED_KEYS, RENAMED_KEYS, clean_keys, of_class
from vlakit.config_schema import (
    TYPE_KEY,
    encode,
    field_default,
    field_types,
    is_choice,
    is_mapping,
    is_text,
    mapping_value_type,
    nested_type,
    selected_class,
    walk_flags,
)
from vlakit.errors import ConfigError, VlakitError, did_you_mean

__all__ = [
    "ACCEPTED_UNUSED_KEYS",
    "RENAMED_KEYS",
    "clean_keys",
    "decode",
    "encode",
    "parse_flags",
    "read_config_file",
]

T = TypeVar("T")
Prepare = Callable[[dict[str, Any]], dict[str, Any]]


def decode(cls: type[T], raw: Mapping[str, Any], *, source: str = "the configuration") -> T:
    """Return the dataclass that `raw` describes.

    Args:
        cls: A dataclass, or a family of them (`raw` then names one by `type`).
        raw: Nested plain values, as JSON gives them.
        source: Where the values come from, for messages.

    Raises:
        ConfigError: A key is unknown or a value does not fit its field.
    """
    return _decode(cls, clean_keys(cls, raw, source=source), f"in {source}: ")


def parse_flags(
    cls: type[T],
    argv: Sequence[str],
    *,
    prog: str,
    summary: str = "",
    prepare: Prepare | None = None,
    extra_flags: Mapping[str, str] | None = None,
) -> T:
    """Return the dataclass that a command line describes; prints and exits on `--help`.

    Args:
        cls: The dataclass of the command.
        argv: Arguments after the command's name.
        prog: The command as typed, such as 'vlakit train'.
        summary: What the command does, for `--help`.
        prepare: Takes and returns the nested raw values after file and flags were merged; resolves
            what stands in no field, such as `policy.path`. What it returns must hold known keys.
        extra_flags: Names (and help) of flags that only `prepare` understands.

    Raises:
        ConfigError: A flag or key is unknown, lacks a value or does not fit its field.
    """
    extras = dict(extra_flags or {})
    pairs = _split(argv)
    config_path = next((text for name, text in reversed(pairs) if name == "config_path"), None)
    pairs = [(name, text) for name, text in pairs if name not in ("config_path", "help")]
    wants_help = any(argument in ("--help", "-h") for argument in argv)
    from_file = read_config_file(Path(config_path)) if config_path and not wants_help else {}
    raw = _merge(from_file, _nest(pairs))
    if wants_help:
        from vlakit.flag_help import render_help

        sys.stdout.write(render_help(cls, raw, prog=prog, summary=summary, extra_flags=extras))
        raise SystemExit(0)
    if prepare is not None:
        raw = prepare(raw)
    _check_flags(cls, [name for name, _ in pairs], raw, extras)
    if from_file:
        clean_keys(cls, from_file, source=str(config_path), types=raw, extras=extras)
    raw = clean_keys(cls, raw, source="the configuration")
    for name, _ in pairs:
        if not _has(from_file, name.split(".")[:-1]):
            raw = _merge(_mapping_defaults(cls, name.split("."), raw), raw)
    return _decode(cls, _with_typed_values(cls, raw, pairs), "")


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


def _split(argv: Sequence[str]) -> list[tuple[str, str]]:
    """Return (name, text) of every flag; accepts `--name=value` and `--name value`."""
    pairs: list[tuple[str, str]] = []
    arguments = list(argv)
    while arguments:
        argument = arguments.pop(0)
        if argument in ("--help", "-h"):
            pairs.append(("help", "true"))
            continue
        if not argument.startswith("--") or argument == "--":
            raise ConfigError(f"{argument!r} is not a flag; flags look like --name=value.")
        name, equals, text = argument[2:].partition("=")
        if not equals:
            if not arguments or arguments[0].startswith("--"):
                raise ConfigError(f"--{name} has no value; write --{name}=..., e.g. --{name}=true.")
            text = arguments.pop(0)
        pairs.append((name, text))
    return pairs


def _value(text: str) -> Any:
    try:
        return parse_string(text)
    except (YAMLError, DraccusException):
        return text  # text that is no YAML is text


def _nest(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, text in pairs:
        _put(nested, name.split("."), _value(text))
    return nested


def _put(nested: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        if not isinstance(nested.get(key), dict):
            nested[key] = {}
        nested = nested[key]
    nested[keys[-1]] = value


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` updated by `over`, dictionaries key by key."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(below, value) if both else value
    return merged


def _mapping_defaults(cls: Any, keys: Sequence[str], raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return, nested, the default of the dictionary that a dotted flag reaches into.

    `--dataset.image_transforms.tfs.affine.weight=0` changes one entry and keeps the others;
    `--dataset.image_transforms.tfs='{...}'` replaces them all.
    """
    head, rest = keys[0], keys[1:]
    annotation = field_types(cls).get(head)
    if annotation is None or not rest:
        return {}
    if is_mapping(annotation):
        return {head: encode(field_default(cls, head)) or {}}
    inner, value = nested_type(annotation), raw.get(head)
    chosen = None if inner is None else selected_class(inner, value)
    if chosen is None:
        return {}
    return {head: _mapping_defaults(chosen, rest, value if isinstance(value, Mapping) else {})}


def _check_flags(
    cls: type, names: Sequence[str], raw: Mapping[str, Any], extras: Mapping[str, str]
) -> None:
    _check_types(cls, raw)
    known = [flag.name for flag in walk_flags(cls, raw)]
    renamed = of_class(RENAMED_KEYS, cls)
    for name in names:
        if name in renamed:
            raise ConfigError(f"--{name} was renamed: use --{renamed[name]}.")
        if name in known or name in extras or _reaches_into_mapping(cls, name, raw):
            continue
        if any(other.startswith(name + ".") for other in known):
            continue  # a whole group as JSON, e.g. --dataset='{"repo_id": "x"}'
        hint = did_you_mean(name, [*known, *extras, "config_path"])
        hint = hint.replace("'", "'--", 1) if hint else " See --help for the list."
        raise ConfigError(f"unknown flag --{name}.{hint}")


def _check_types(cls: Any, raw: Mapping[str, Any], prefix: str = "") -> None:
    """Raise when a family (policy, env, ...) has values but no known `type`."""
    for key, annotation in field_types(cls).items():
        inner, value = nested_type(annotation), raw.get(key)
        if inner is None or not isinstance(value, Mapping):
            continue
        chosen = selected_class(inner, value)
        if chosen is None:
            name, choices = f"--{prefix}{key}.{TYPE_KEY}", sorted(inner.get_known_choices())
            expected = f"expected one of {', '.join(choices)}"
            if TYPE_KEY not in value:
                raise ConfigError(f"{name} is missing: {expected}.")
            hint = did_you_mean(str(value[TYPE_KEY]), choices)
            raise ConfigError(f"{name}={value[TYPE_KEY]} is unknown: {expected}.{hint}")
        _check_types(chosen, value, f"{prefix}{key}.")


def _reaches_into_mapping(cls: Any, name: str, raw: Mapping[str, Any]) -> bool:
    """Return whether a dotted name ends inside a dictionary, e.g. `rename_map.a`."""
    head, _, rest = name.partition(".")
    annotation = field_types(cls).get(head)
    if annotation is None or not rest:
        return False
    inner, value = nested_type(annotation), raw.get(head)
    if inner is None:
        item = mapping_value_type(annotation)
        leaf = rest.partition(".")[2]
        return is_mapping(annotation) and (item is None or not leaf or leaf in field_types(item))
    value = value if isinstance(value, Mapping) else {}
    chosen = selected_class(inner, value)
    return chosen is not None and _reaches_into_mapping(chosen, rest, value)


def _with_typed_values(
    cls: type, raw: Mapping[str, Any], pairs: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """Return `raw` with free-text flags as typed: `--job_name=007` stays '007'."""
    result = _merge({}, raw)
    for name, text in pairs:
        keys, owner, values = name.split("."), cls, result
        for key in keys[:-1]:
            owner = selected_class(nested_type(field_types(owner).get(key)), values.get(key))
            values = values.get(key)
            if owner is None or not isinstance(values, dict):
                break
        else:
            annotation = field_types(owner).get(keys[-1])
            if annotation is not None and is_text(annotation) and values.get(keys[-1]) is not None:
                values[keys[-1]] = text
    return result


def _decode(cls: type[T], raw: Mapping[str, Any], where: str) -> T:
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
        if flag.is_required and not _has(raw, flag.name[len(prefix) :].split(".")):
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


def _has(raw: Any, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(raw, Mapping) or key not in raw:
            return False
        raw = raw[key]
    return True


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
