# SPDX-License-Identifier: Apache-2.0
"""The log of a run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from vlakit.datasets.config import DatasetConfig
from vlakit.errors import ConfigError
from vlakit.policies.eo1.config import EO1Config
from vlakit.training.config import TrainFlags, WandBConfig
from vlakit.training.metrics import Averages, LogFile, check_wandb, log_line
from vlakit.training.step import StepResult


def _result(loss: float, lr: float = 1e-4) -> StepResult:
    return StepResult(torch.tensor(loss), torch.tensor(2.0), lr, {"loss": loss, "mse": loss / 2})


def test_a_line_averages_the_steps_since_the_line_before() -> None:
    averages = Averages(batch_size=4, num_frames=16)
    averages.add(_result(1.0), 0.0)
    averages.add(_result(3.0, lr=2e-4), 0.0)
    entry = averages.flush(2)
    assert (entry["loss"], entry["mse"], entry["lr"], entry["samples"]) == (2.0, 1.0, 2e-4, 8)
    assert entry["epochs"] == 0.5
    assert entry["samples_per_s"] > 0
    averages.add(_result(7.0), 0.0)
    assert averages.flush(3)["loss"] == 7.0
    assert "loss 7.0000" in log_line(averages_entry(7.0))


def averages_entry(loss: float) -> dict[str, float]:
    averages = Averages(4, 16)
    averages.add(_result(loss), 0.0)
    return averages.flush(1)


def test_pauses_do_not_count_as_training_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr("vlakit.training.metrics.time.perf_counter", lambda: next(now))
    averages = Averages(4, 16)
    averages.add(_result(1.0), 0.0)
    averages.pause(8.0)
    assert averages.flush(1)["samples_per_s"] == pytest.approx(2.0)


def test_lines_of_steps_that_will_be_done_again_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 3}\n{"step": 2, "loss": 2}\n{"step": 3, "lo')
    LogFile(path, resumed_step=1).write({"step": 2, "loss": math.nan})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 3}, {"step": 2, "loss": None}]


def test_wandb_that_is_not_installed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    flags = TrainFlags(
        dataset=DatasetConfig(repo_id="a"),
        policy=EO1Config(push_to_hub=False),
        wandb=WandBConfig(enable=True),
    )
    with pytest.raises(ConfigError, match="needs the package wandb, which is not installed"):
        check_wandb(flags)
