# SPDX-License-Identifier: Apache-2.0
"""The table of targets says what the benchmarks' lines say, and nothing where there is no line."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "table.py"


@pytest.fixture(scope="module")
def table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_table", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def chunk(ours: float, reference: float | None, **changes: Any) -> dict[str, Any]:
    """Return a line of `pi0_fast_inference.py`."""
    times = {"ours_ms": ours} | ({} if reference is None else {"reference_ms": reference})
    place = {"case": "pi0-FAST action chunk, batch 1", "on": "cpu", "shape": "middle"}
    return place | times | changes


def row(table: ModuleType, lines: list[dict[str, Any]], what: str) -> list[str]:
    found = [line for line in table.table(lines).splitlines() if line.startswith(f"| {what} |")]
    assert len(found) == 1, found
    return [cell.strip() for cell in found[0].strip("|").split("|")][2:]


CPU, GPU = "pi0-FAST chunk, middle", "pi0-FAST chunk, gemma_2b"


def test_a_ratio_is_ours_by_the_reference(table: ModuleType) -> None:
    assert row(table, [chunk(60, 100)], CPU) == ["60 ms", "100 ms", "0.60x", "<= 0.75x", "yes"]
    assert row(table, [chunk(80, 100)], CPU)[2:] == ["0.80x", "<= 0.75x", "no"]
    assert row(table, [chunk(1234.5, 22445.4)], CPU)[:3] == ["1,234 ms", "22,445 ms", "0.055x"]


def test_only_a_line_of_that_device_and_size_counts(table: ModuleType) -> None:
    absent = ["not measured", "", "", "<= 0.12x", ""]
    assert row(table, [chunk(60, 100)], GPU) == absent
    assert row(table, [chunk(60, 100, on="cuda", shape="tiny")], GPU) == absent
    assert row(table, [chunk(10, 100, on="cuda", shape="full")], GPU)[2] == "0.10x"


def test_the_last_line_counts_and_a_lost_reference_is_said(table: ModuleType) -> None:
    alone = chunk(60, None)
    assert row(table, [alone], CPU) == ["60 ms", "not measured", "", "<= 0.75x", ""]
    assert row(table, [alone, chunk(50, 100)], CPU)[2] == "0.50x"


def test_progress_between_the_lines_is_left_out(table: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(f"== a stage\n{json.dumps(chunk(1, 2))}\n", encoding="utf-8")
    assert table.read_lines([path]) == [chunk(1, 2)]
