# SPDX-License-Identifier: Apache-2.0
"""Files: read with errors that name them, and written so that nobody ever sees half of one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlakit.errors import VlakitError


def read_json(
    path: Path, error: type[VlakitError], *, missing: str, damaged: str, kind: type = dict
) -> Any:
    """Return the content of a JSON file.

    Args:
        path: the file.
        error: raised when the file is missing, damaged or holds something else.
        missing: what the message says after "<path> is missing".
        damaged: what to do about a damaged file, the message's last sentence.
        kind: what the file holds, `dict` or `list`.
    """
    if not path.is_file():
        raise error(f"{path} is missing{missing}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as reason:
        raise error(f"{path} cannot be read as JSON ({reason}). {damaged}") from reason
    if not isinstance(content, kind):
        expected = {dict: "object", list: "list"}[kind]
        raise error(
            f"{path} holds a {type(content).__name__}; expected a JSON {expected}. {damaged}"
        )
    return content


def write_json(path: Path, content: Any, *, indent: int = 4) -> None:
    """Write a JSON file, whole or not at all."""
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give the path to write to; it takes the name `path` when the block ends without an error.

    Until then a file that was there stays as it was. The path given ends in `.part`, so that what a
    killed process leaves is never taken for the file.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def folder_stamp(folder: Path, patterns: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """Return what changes when files of a folder do: their names, sizes and times.

    Args:
        folder: the folder.
        patterns: of `Path.glob`, the files that count.
    """
    paths = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    stats = [(path, path.stat()) for path in paths]
    return tuple((path.name, stat.st_size, stat.st_mtime_ns) for path, stat in stats)
