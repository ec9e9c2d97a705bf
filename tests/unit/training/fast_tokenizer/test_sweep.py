# SPDX-License-Identifier: Apache-2.0
"""The sweep: every combination once, what is impossible with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.unit.training.fast_tokenizer.conftest import Reader
from vlakit.training.fast_tokenizer import sweep as module
from vlakit.training.fast_tokenizer.fit import train
from vlakit.training.fast_tokenizer.report import measure
from vlakit.training.fast_tokenizer.sweep import impossible_lines, save_sweep, sweep

QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def _small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VOCAB_SIZES", (320, 512))
    monkeypatch.setattr(module, "SCALES", (3.0, 25.0))


def test_every_combination_and_that_of_the_flags(read: Reader, tmp_path: Path) -> None:
    data = read(action_horizon=8, scale=10.0, vocab_size=400)
    candidates = sweep(data, QUIET)
    combinations = [(c.scale, c.vocab_size) for c in candidates]
    assert combinations == [(3, 320), (3, 512), (10, 400), (25, 320), (25, 512)]
    assert [c.is_given for c in candidates] == [False, False, True, False, False]
    given = candidates[2]
    assert given.measured == measure(train(data, 400, 10.0), data.chunks)
    coarse, fine = candidates[1].measured, candidates[4].measured
    assert coarse is not None
    assert fine is not None
    assert coarse.error.mean > 2 * fine.error.mean
    assert coarse.tokens.mean < fine.tokens.mean
    save_sweep(candidates, data, tmp_path / "new")
    stored = json.loads((tmp_path / "new/sweep.json").read_text(encoding="utf-8"))
    assert [entry["vocab_size"] for entry in stored["candidates"]] == [320, 512, 400, 320, 512]
    assert stored["candidates"][2]["given"]
    lines = (tmp_path / "new/sweep.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| 10 | 400 * |")]
    assert len(rows) == 1
    assert f" {given.measured.tokens.mean:.1f}, " in rows[0]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["sweep.json", "sweep.md"]


def test_the_combination_of_the_flags_may_be_in_the_grid(read: Reader) -> None:
    candidates = sweep(read(action_horizon=8, scale=3.0, vocab_size=512), QUIET)
    assert [c.is_given for c in candidates] == [False, True, False, False]


def test_what_is_impossible_says_why(read: Reader) -> None:
    candidates = sweep(read(action_horizon=8, scale=1e6), QUIET)
    (line,) = impossible_lines(candidates)
    assert line.startswith("scale 1e+06, vocabulary 1024: chunk")
    assert "no character stands for" in line
    assert candidates[-1].cells()[2:] == ["-"] * 5
    assert all(c.measured is not None for c in candidates[:-1])
