# SPDX-License-Identifier: Apache-2.0
"""Timing shared by the benchmarks: sides that take turns, and one JSON line per case."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import vlakit

OURS, REFERENCE, COMPILED = "ours", "reference", "compiled_ours"

Side = Callable[[], float]
"""Does the work once and returns the milliseconds it took."""


def make_parser(
    description: str | None, *, repeats: int, other_process: bool = True
) -> argparse.ArgumentParser:
    """Return the flags that every benchmark has.

    Args:
        description: the module's docstring; its first line is shown.
        repeats: default number of measured turns.
        other_process: the reference, if there is one, runs in a Python of its own.
    """
    parser = argparse.ArgumentParser(description=(description or "").strip().splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="of torch, on both sides")
    parser.add_argument("--repeats", type=int, default=repeats, help="measured turns of each side")
    if other_process:
        parser.add_argument(
            "--reference-python",
            default=None,
            help="a Python that has LeRobot 0.6.1; without it only our side is measured",
        )
        parser.add_argument(
            "--reference-path",
            default=None,
            help="PYTHONPATH of that Python, where LeRobot lies in a folder beside it",
        )
    return parser


def timed(work: Callable[[], object]) -> Side:
    """Return a side that runs `work` in this process."""

    def side() -> float:
        start = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - start)

    return side


def take_turns(
    sides: Mapping[str, Side], *, repeats: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Return the milliseconds of every measured turn of each side.

    The sides alternate (A B A B ...), so that other load on the machine falls on all alike.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warmup + repeats):
        for name, side in sides.items():
            elapsed_ms = side()
            if turn >= warmup:
                times[name].append(elapsed_ms)
    return times


def report(case: str, times: Mapping[str, list[float]], **details: Any) -> None:
    """Print one JSON line: the medians, their ratio, the slowest twentieth and circumstances."""
    line: dict[str, Any] = {"case": case}
    for name, values in times.items():
        line[f"{name}_ms"] = round(statistics.median(values), 2)
        if len(values) >= 20:
            line[f"{name}_p95_ms"] = round(statistics.quantiles(values, n=20)[-1], 2)
    if OURS in times and REFERENCE in times:
        # How many times faster we are: above 1 is good for us.
        line["ratio"] = round(line[f"{REFERENCE}_ms"] / line[f"{OURS}_ms"], 2)
        # The share of its time that we take, as targets are written: below 1 is good for us.
        line["ours_over_reference"] = round(line[f"{OURS}_ms"] / line[f"{REFERENCE}_ms"], 3)
    elif OURS in times:
        line["reference"] = "not measured: give --reference-python"
    repeats = len(next(iter(times.values())))
    print(json.dumps(line | details | {"repeats": repeats} | circumstances()), flush=True)


def circumstances() -> dict[str, Any]:
    """Return where this process runs."""
    return {
        "device": _cpu_name(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_initialized() else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "vlakit": vlakit.__version__,
        "commit": _commit(),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str | None:
    """Return the short commit of this working tree, None where there is no git."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
