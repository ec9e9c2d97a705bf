# SPDX-License-Identifier: Apache-2.0
"""What a run says about itself: `log.jsonl`, a line on the screen, a progress bar, wandb on demand.

`log.jsonl` has one JSON object per line. Training lines have `step`, `loss`, `grad_norm`, `lr` and
speeds, averaged since the line before; lines with `eval_loss` or `rollouts` stand beside them.
"""

from __future__ import annotations

import importlib
import json
import math
import time
from pathlib import Path
from typing import Any

from vlakit.config import encode
from vlakit.errors import ConfigError
from vlakit.files import written_whole
from vlakit.training.config import TrainFlags
from vlakit.training.step import StepResult

LOG_FILE = "log.jsonl"


class LogFile:
    """Appends JSON lines; each line is on disk when `write` returns."""

    def __init__(self, path: Path, *, resumed_step: int = 0) -> None:
        """Prepare the log, without lines of steps that will be done again.

        Args:
            path: The file; it and its folder are made with the first entry.
            resumed_step: Steps done by the checkpoint that is resumed; later lines are dropped.
        """
        self.path = path
        self._resumed_step = resumed_step
        self._is_open = False

    def _open(self) -> None:
        """Make the folder, drop lines; only now: a run that fails at once changes nothing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():
            kept = [line for line in self.path.read_text("utf-8").splitlines(keepends=True)
                    if _step_of(line) <= self._resumed_step]  # fmt: skip
            with written_whole(self.path) as part:
                part.write_text("".join(kept), encoding="utf-8")
        self._is_open = True

    def write(self, entry: dict[str, Any]) -> None:
        """Append one entry; numbers that JSON cannot hold become null."""
        if not self._is_open:
            self._open()
        line = json.dumps({key: _plain(value) for key, value in entry.items()})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line cut short by a kill


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Averages:
    """Numbers of the steps since the last log line."""

    def __init__(self, batch_size: int, num_frames: int) -> None:
        self.batch_size, self.num_frames = batch_size, num_frames
        self._reset()

    def _reset(self) -> None:
        self._results: list[StepResult] = []
        self._data_s = self._paused_s = 0.0
        self._started = time.perf_counter()

    def add(self, result: StepResult, data_s: float) -> None:
        """Take one step in; `data_s` is the time it waited for its batch."""
        self._results.append(result)
        self._data_s += data_s

    def pause(self, seconds: float) -> None:
        """Leave time spent on checkpoints and evaluation out of the speed."""
        self._paused_s += seconds

    def flush(self, step: int) -> dict[str, Any]:
        """Return the averages up to `step`, and start anew."""
        count = len(self._results)
        names = self._results[-1].metrics
        means = {
            name: sum(r.metrics.get(name, math.nan) for r in self._results) / count
            for name in names
            if name != "loss"
        }
        entry = {
            "step": step,
            "samples": step * self.batch_size,
            "epochs": step * self.batch_size / self.num_frames,
            "loss": sum(float(r.loss) for r in self._results) / count,
            "grad_norm": sum(float(r.grad_norm) for r in self._results) / count,
            "lr": self._results[-1].lr,
            **means,
        }
        # The clock is read after float(): that waits for the device.
        seconds = max(time.perf_counter() - self._started - self._paused_s, 1e-9)
        entry["data_s"] = self._data_s / count
        entry["step_s"] = seconds / count
        entry["samples_per_s"] = count * self.batch_size / seconds
        self._reset()
        return entry


def log_line(entry: dict[str, Any]) -> str:
    """Return a log entry as one short line."""
    return (
        f"step {entry['step']:>7,}  epoch {entry['epochs']:.2f}  loss {entry['loss']:.4f}  grad "
        f"{entry['grad_norm']:.3g}  lr {entry['lr']:.2e}  {entry['samples_per_s']:.1f} samples/s"
    )


class WandB:
    """Sends log entries to Weights & Biases, under LeRobot's names `train/...` and `eval/...`."""

    def __init__(self, flags: TrainFlags, output_dir: Path) -> None:
        """Start the run.

        Raises:
            ConfigError: wandb is not installed.
        """
        settings = flags.wandb
        output_dir.mkdir(parents=True, exist_ok=True)
        self._run = _import_wandb().init(
            project=settings.project,
            entity=settings.entity,
            notes=settings.notes,
            id=settings.run_id,
            mode=settings.mode or "online",
            name=flags.name(),
            dir=str(output_dir),
            resume="must" if flags.resume and settings.run_id else None,
            config=encode(flags),
            tags=[flags.name(), f"seed:{flags.seed}"] if settings.add_tags else None,
        )

    def write(self, entry: dict[str, Any]) -> None:
        """Send one entry of the log."""
        kind = "eval" if "rollouts" in entry or "eval_loss" in entry else "train"
        values = entry.get("rollouts", entry)
        numbers = {f"{kind}/{k}": v for k, v in values.items() if isinstance(v, int | float)}
        self._run.log(numbers, step=entry["step"])


def check_wandb(flags: TrainFlags) -> None:
    """Raise ConfigError when wandb is asked for and not installed."""
    if flags.wandb.enable:
        _import_wandb()


def _import_wandb() -> Any:
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise ConfigError(
            "--wandb.enable=true needs the package wandb, which is not installed: "
            "`pip install wandb`, or leave the flag out (log.jsonl is always written)."
        ) from error
