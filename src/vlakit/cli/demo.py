# SPDX-License-Identifier: Apache-2.0
"""`vlakit demo`: the whole way from nothing to policies that visibly work, and a page about them.

It only types the commands that a person would type (`vlakit collect`, `train`, `eval`), in this
process, and puts what they wrote into `report.html`.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence

from rich.console import Console

from vlakit.cli.demo_flags import DemoFlags
from vlakit.cli.demo_steps import plan
from vlakit.cli.output_folder import check_can_be_made
from vlakit.config import parse_flags
from vlakit.errors import ConfigError

SUMMARY = (
    "Record experts, train EO-1 and pi0-FAST on them, evaluate both with controls, write a report."
)
MARKER_FILE = "demo.json"
REPORT_FILE = "report.html"


def main(argv: Sequence[str]) -> int:
    """Run the demo and say where the report is."""
    # As in `vlakit eval`, and set here because torch is imported before that step.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    flags = parse_flags(DemoFlags, argv, prog="vlakit demo", summary=SUMMARY)
    from vlakit.cli.demo_report import make_report
    from vlakit.cli.main import run_command
    from vlakit.evaluation.report import write_report
    from vlakit.policies.base import resolve_device

    resolve_device(flags.device, flag="--device")

    console = Console(stderr=True, highlight=False)
    prepare_folder(flags)
    started = time.monotonic()
    seconds = {}
    for step in plan(flags):
        console.rule(f"[bold]{step.title}", align="left")
        step_started = time.monotonic()
        run_command(step.arguments)
        seconds[step.title] = time.monotonic() - step_started
    report = make_report(flags, seconds, time.monotonic() - started)
    path = flags.output_dir / REPORT_FILE
    write_report(report, path)
    console.rule("[bold]Result", align="left")
    for row in report.rows:
        cells = zip(report.conditions, row.cells, strict=True)
        shown = ", ".join(f"{name} {cell.successes}/{cell.num_rollouts}" for name, cell in cells)
        console.print(f"{row.policy}, {row.task}: {shown}")
    console.print(f"{report.summary} Open {path} in a browser.")
    return 0


def prepare_folder(flags: DemoFlags) -> None:
    """Make an empty output folder; only a folder that a demo made is ever replaced.

    Raises:
        ConfigError: The folder holds something else.
    """
    folder = flags.output_dir
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output_dir={folder} is a file: give a folder.")
    check_can_be_made(folder, "--output_dir")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER_FILE).exists():
            raise ConfigError(
                f"--output_dir={folder} holds something that no demo made: "
                "give another folder or empty this one."
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {name: str(value) for name, value in vars(flags).items()}
    (folder / MARKER_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
