# SPDX-License-Identifier: Apache-2.0
"""`vlakit collect`: record demonstrations of scripted experts as a LeRobot dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vlakit.cli.output_folder import check_can_be_made
from vlakit.collection.config import CollectConfig
from vlakit.config import parse_flags

SUMMARY = "Record demonstrations of scripted experts in a simulator as a LeRobot v3.0 dataset."


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    config = parse_flags(CollectConfig, argv, prog="vlakit collect", summary=SUMMARY)
    from vlakit.collection.expert import collect
    from vlakit.datasets.location import lerobot_home

    root = Path(config.root) if config.root is not None else lerobot_home() / config.repo_id
    if not root.exists():
        check_can_be_made(root, "--root")

    console = Console(stderr=True)
    summary = collect(config, console=console)
    table = Table(title=f"{summary.num_episodes} episodes, {summary.num_frames} frames")
    for column in ("task", "instruction", "kept", "failed", "frames", "seeds"):
        table.add_column(column)
    for task in summary.tasks:
        seeds = [*task.kept_seeds, *task.failed_seeds]
        counts = (len(task.kept_seeds), len(task.failed_seeds), task.num_frames)
        span = f"{min(seeds)} to {max(seeds)}"
        table.add_row(task.task, task.instruction, *map(str, counts), span)
    console.print(table)
    console.print(f"{summary.root} in {summary.seconds:.0f} s", highlight=False, soft_wrap=True)
    return 0
