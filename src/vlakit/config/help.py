# SPDX-License-Identifier: Apache-2.0
"""The text of `--help`: every flag with its type, default and docstring, group by group."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from vlakit.config.schema import Flag, walk_flags

SYNTAX = (
    "Flags are --name=value or --name value; a boolean that stands alone is true, lists and "
    'dictionaries are JSON (\'{"a": "b"}\'), null means none. --config_path=FILE reads the same '
    "names from a YAML or JSON file, and flags win over it."
)


def render_help(
    cls: type,
    raw: Mapping[str, Any],
    *,
    prog: str,
    summary: str = "",
    extra_flags: Mapping[str, str] | None = None,
) -> str:
    """Return the help of a command, with the flags of the types that `raw` selects.

    Args:
        cls: The dataclass of the command.
        raw: Values given on the command line, nested; their `type` keys open more flags.
        prog: The command as typed.
        summary: What the command does.
        extra_flags: Names and help of flags that are no fields of `cls`; without help, not shown.
    """
    width = min(max(shutil.get_terminal_size().columns, 60), 120)
    lines = [f"usage: {prog} [--flag=value ...]", ""]
    lines += [*textwrap.wrap(summary, width), ""] if summary else []
    lines += [*textwrap.wrap(SYNTAX, width), ""]
    extras = [Flag(name, "str", None, text) for name, text in (extra_flags or {}).items() if text]
    general = [
        Flag("help", "", None, "Show this text. Add --policy.type=... (or --env.type=...) to it to "
             "see the flags of that type."),
        Flag("debug", "", None, "Show the traceback of an error."),
        Flag("config_path", "path", None, "YAML or JSON file with values for any of these flags."),
    ]  # fmt: skip
    flags = [*general, *walk_flags(cls, raw), *extras]
    for group, members in groupby(sorted(flags, key=_group), key=_group):
        lines.append(f"{group}:" if group else "general:")
        for flag in members:
            lines += _lines(flag, width)
        lines.append("")
    return "\n".join(lines)


def _group(flag: Flag) -> str:
    return flag.name.rpartition(".")[0].split(".")[0]


def _lines(flag: Flag, width: int) -> list[str]:
    facts = []
    if flag.choices:
        facts.append(f"one of {', '.join(flag.choices)}")
    elif flag.type_name:
        facts.append(flag.type_name)
    if flag.is_required:
        facts.append("required")
    elif flag.default is not None:
        facts.append(f"default {shown(flag.default)}")
    head = f"  --{flag.name}" + (f"  ({'; '.join(facts)})" if facts else "")
    return [head, *textwrap.wrap(flag.help, width - 8, initial_indent=" " * 8,
                                 subsequent_indent=" " * 8)]  # fmt: skip


def shown(value: Any) -> str:
    """Return a default as a user would type it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
