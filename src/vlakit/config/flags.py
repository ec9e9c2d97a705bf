# SPDX-License-Identifier: Apache-2.0
"""From a command line to the dataclass of the command.

    argv ─┐
          ├─ merged raw values ─ unknown names refused ─ draccus ─ dataclass ─ encode ─ JSON
    file ─┘

draccus turns plain values into typed ones and runs the dataclasses' own checks. Everything a user
sees is said here: an unknown name with the nearest known one, a value that does not fit its field,
and the message of a check that draccus would hide behind "Couldn't instantiate class".
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vlakit.config.accepted_keys import RENAMED_KEYS, clean_keys, of_class
from vlakit.config.decoding import decode_clean
from vlakit.config.raw_values import has_key, merged, nested, read_config_file, split_arguments
from vlakit.config.schema import (
    TYPE_KEY,
    encode,
    field_default,
    field_types,
    is_mapping,
    is_text,
    mapping_value_type,
    nested_type,
    selected_class,
    walk_flags,
)
from vlakit.errors import ConfigError, did_you_mean

T = TypeVar("T")
Prepare = Callable[[dict[str, Any]], dict[str, Any]]


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
    given = split_arguments(argv)
    pairs = [(name, "true" if text is None else text) for name, text in given]
    config_path = next((text for name, text in reversed(pairs) if name == "config_path"), None)
    pairs = [(name, text) for name, text in pairs if name not in ("config_path", "help")]
    wants_help = any(argument in ("--help", "-h") for argument in argv)
    from_file = read_config_file(Path(config_path)) if config_path and not wants_help else {}
    raw = merged(from_file, nested(pairs))
    _check_values(cls, [name for name, text in given if text is None], raw)
    if wants_help:
        from vlakit.config.help import render_help

        sys.stdout.write(render_help(cls, raw, prog=prog, summary=summary, extra_flags=extras))
        raise SystemExit(0)
    if prepare is not None:
        raw = prepare(raw)
    _check_flags(cls, [name for name, _ in pairs], raw, extras)
    if from_file:
        clean_keys(cls, from_file, source=str(config_path), types=raw, extras=extras)
    raw = clean_keys(cls, raw, source="the configuration")
    for name, _ in pairs:
        if not has_key(from_file, name.split(".")[:-1]):
            raw = merged(_mapping_defaults(cls, name.split("."), raw), raw)
    return decode_clean(cls, _with_typed_values(cls, raw, pairs), "")


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


def _check_values(cls: type, names: Sequence[str], raw: Mapping[str, Any]) -> None:
    """Raise when a flag that stands alone is no boolean."""
    booleans = {f.name for f in walk_flags(cls, raw) if f.type_name in ("bool", "bool or null")}
    for name in names:
        if name not in booleans and name != "help":
            raise ConfigError(f"--{name} has no value; write --{name}=..., e.g. --{name}=true.")


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
    result = merged({}, raw)
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
