# SPDX-License-Identifier: Apache-2.0
"""What a flags dataclass holds: the name, type, default and help of every flag.

One walk over the dataclass serves three readers: the parser (is this flag known?), `--help` and
`docs/flags.md`. The help of a flag is the docstring under its field.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass
from enum import Enum
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Union

TYPE_KEY = "type"
"""The key that selects one of the registered classes, as in `--policy.type`."""


@dataclass(frozen=True)
class Flag:
    """One flag, as a user types it without the leading dashes."""

    name: str
    type_name: str
    default: Any
    help: str
    is_required: bool = False
    choices: tuple[str, ...] = ()


def encode(value: Any) -> Any:
    """Return `value` as JSON can hold it: enums by name, tuples as lists, paths as strings.

    A dataclass that belongs to a registry (a policy, an environment) starts with its `type`.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        head = {TYPE_KEY: name} if (name := choice_name(type(value))) else {}
        fields = {field.name: encode(getattr(value, field.name)) for field in _fields(type(value))}
        return head | fields
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {encode(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return value


def _fields(cls: type) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(cls) if field.init]


@cache
def field_types(cls: type) -> dict[str, Any]:
    """Return the type of every field, annotations resolved."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in _fields(cls)}


def field_default(cls: type, name: str) -> Any:
    """Return the default of one field, or None when it has none."""
    return next((_default(field) for field in _fields(cls) if field.name == name), None)


def is_choice(cls: Any) -> bool:
    """Return whether `cls` stands for a family of registered classes."""
    return isinstance(cls, type) and hasattr(cls, "get_known_choices") and choice_name(cls) is None


def choice_name(cls: type) -> str | None:
    """Return the name `cls` is registered under, or None when it is not one of a family."""
    if not hasattr(cls, "get_choice_name"):
        return None
    try:
        return cls.get_choice_name(cls)
    except ValueError:
        return None


def nested_type(annotation: Any) -> Any:
    """Return the dataclass inside an annotation (`X` or `X | None`), or None."""
    for option in _options(annotation):
        if dataclasses.is_dataclass(option) or is_choice(option):
            return option
    return None


def mapping_value_type(annotation: Any) -> Any:
    """Return the dataclass that a `dict[str, X]` holds, or None."""
    for option in _options(annotation):
        if typing.get_origin(option) is dict:
            return nested_type(typing.get_args(option)[1])
    return None


def is_mapping(annotation: Any) -> bool:
    """Return whether a field holds a dictionary."""
    return any(
        option is dict or typing.get_origin(option) is dict for option in _options(annotation)
    )


def is_text(annotation: Any) -> bool:
    """Return whether a field holds free text, so that `007` must not become a number."""
    return all(option in (str, Path, type(None)) for option in _options(annotation))


def _options(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def selected_class(cls: Any, raw: Any) -> Any:
    """Return the class that `raw` selects: `cls` itself, or one of its family by the `type` key.

    None stands for a family without a (known) choice.
    """
    if not is_choice(cls):
        return cls
    name = raw.get(TYPE_KEY) if isinstance(raw, Mapping) else None
    return cls.get_known_choices().get(name)


def walk_flags(cls: type, raw: Mapping[str, Any], prefix: str = "") -> Iterator[Flag]:
    """Yield the flags of `cls`, descending into the families that `raw` selects.

    Args:
        cls: A dataclass.
        raw: Values given so far, nested; only its `type` keys matter.
        prefix: Put before every name, with its dot.
    """
    docs, defaults = field_docs(cls), _default_instance(cls)
    for field in _fields(cls):
        annotation, name = field_types(cls)[field.name], prefix + field.name
        inner, given = nested_type(annotation), raw.get(field.name)
        if inner is None:
            yield _leaf_flag(field, annotation, name, docs.get(field.name, ""), defaults)
            continue
        chosen = selected_class(inner, given)
        if is_choice(inner):
            choices = tuple(sorted(inner.get_known_choices()))
            yield Flag(f"{name}.{TYPE_KEY}", "str", None, docs.get(field.name, ""), choices=choices)
        if chosen is not None:
            yield from walk_flags(chosen, given if isinstance(given, Mapping) else {}, name + ".")


def _leaf_flag(
    field: dataclasses.Field, annotation: Any, name: str, doc: str, defaults: Any
) -> Flag:
    required = field.default is MISSING and field.default_factory is MISSING
    default = None if required else encode(getattr(defaults, field.name, _default(field)))
    choices = tuple(
        str(value)
        for option in _options(annotation)
        if typing.get_origin(option) is Literal
        for value in typing.get_args(option)
    )
    return Flag(name, type_name(annotation), default, doc, is_required=required, choices=choices)


def _default(field: dataclasses.Field) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else None


def _default_instance(cls: type) -> Any:
    """Return an object with the field defaults, without running the class's checks."""
    return types.SimpleNamespace(**{field.name: _default(field) for field in _fields(cls)})


def type_name(annotation: Any) -> str:
    """Return an annotation as a user reads it: `int`, `str or null`, `list[int]`."""
    names = []
    for option in _options(annotation):
        if option is type(None):
            names.append("null")
        elif typing.get_origin(option) is Literal:
            names.append("choice")
        elif typing.get_origin(option) is None:
            names.append("path" if option is Path else getattr(option, "__name__", str(option)))
        else:
            names.append(_generic_name(option))
    return " or ".join(names)


def _generic_name(annotation: Any) -> str:
    arguments = ", ".join(
        "..." if argument is Ellipsis else type_name(argument)
        for argument in typing.get_args(annotation)
    )
    return f"{typing.get_origin(annotation).__name__}[{arguments}]"


@cache
def field_docs(cls: type) -> dict[str, str]:
    """Return the docstring under each field of `cls`, its bases' first."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base) and base.__module__ != "builtins":
            docs |= _own_field_docs(base)
    return docs


def _own_field_docs(cls: type) -> dict[str, str]:
    definition = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(definition, ast.ClassDef)
    docs = {}
    for statement, following in pairwise(definition.body):
        if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
            text = getattr(following.value, "value", None)
            if isinstance(text, str) and isinstance(statement.target, ast.Name):
                docs[statement.target.id] = " ".join(text.split())
    return docs
