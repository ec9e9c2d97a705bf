# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a file, and what a command must say about it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlakit.cli.main import main

Damage = Callable[[Path], object]


def one_line(
    capsys: pytest.CaptureFixture[str], arguments: Sequence[object], *words: str, out: Path
) -> None:
    """Run a command; it must say the words in one line, return 2 and write nothing to `out`."""
    before = contents(out)
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"vlakit {arguments[0]}: ")
    for word in words:
        assert word in lines[0], lines[0]
    assert contents(out) == before


def contents(folder: Path) -> dict[Path, int]:
    """Return the time of every file, 0 for folders; empty when there is no such folder."""
    found = [path for path in (folder, *folder.rglob("*")) if path.exists()]
    return {path: path.stat().st_mtime_ns if path.is_file() else 0 for path in found}


def cut(name: str, share: float = 0.5) -> Damage:
    """Return what keeps only the first part of a file."""

    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return damage


def write(name: str, data: bytes) -> Damage:
    """Return what replaces the content of a file."""
    return lambda folder: (folder / name).write_bytes(data)


def remove(name: str) -> Damage:
    """Return what deletes a file."""
    return lambda folder: (folder / name).unlink()


def edit_json(name: str, change: Callable[[Any], object]) -> Damage:
    """Return what changes the content of a JSON file in place."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        change(content)
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    return damage


def edit_tensors(name: str, change: Callable[[dict[str, Tensor]], object]) -> Damage:
    """Return what changes the tensors of a safetensors file."""

    def damage(folder: Path) -> None:
        tensors = {key: value.clone() for key, value in load_file(folder / name).items()}
        change(tensors)
        save_file(tensors, folder / name)

    return damage


def edit_table(name: str, change: Callable[[Any], Any]) -> Damage:
    """Return what replaces the table of a parquet file."""

    def damage(folder: Path) -> None:
        pq.write_table(change(pq.read_table(folder / name)), folder / name)

    return damage


def with_value(column: str, row: int, value: float) -> Callable[[Any], Any]:
    """Return what puts a value into one row of a column of vectors."""

    def change(table: Any) -> Any:
        values = table[column].to_pylist()
        values[row] = [value, *values[row][1:]]
        place = table.column_names.index(column)
        field = table.schema.field(place)
        return table.set_column(place, field, [_array(values, field.type)])

    return change


def _array(values: list[Any], kind: Any) -> Any:
    import pyarrow as pa

    return pa.array(values, type=kind)


WEIGHTS = "model.safetensors"
BIAS = "model.state_proj.bias"
WEIGHT_FAULTS: dict[str, tuple[Damage, tuple[str, ...]]] = {
    "missing": (remove(WEIGHTS), ("has no weights; expected model.safetensors", "Give the")),
    "truncated": (cut(WEIGHTS), (f"{WEIGHTS} is no complete safetensors file", "again")),
    "empty": (write(WEIGHTS, b""), (f"{WEIGHTS} is no complete safetensors file",)),
    "foreign": (write(WEIGHTS, b"PK\x03\x04" * 999), ("another format; copy or download it",)),
    "lacks a tensor": (
        edit_tensors(WEIGHTS, lambda tensors: tensors.pop(BIAS)),
        ("do not fit", f"1 missing: {BIAS}", "Give the configuration"),
    ),
    "has a tensor more": (
        edit_tensors(WEIGHTS, lambda tensors: tensors.update(other=torch.ones(1))),
        ("1 unexpected: other",),
    ),
    "misshaped": (
        edit_tensors(WEIGHTS, lambda tensors: tensors.update({BIAS: torch.ones(2)})),
        (f"1 misshaped: {BIAS} [2] (expected [128])",),
    ),
}
"""Fault of a weight file -> how it comes about, and words of the message."""
