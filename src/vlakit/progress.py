# SPDX-License-Identifier: Apache-2.0
"""The bar of a long step: what is done, how many, how long it took and how long it will take."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def progress_bar(
    console: Console, counted: str, *, only_on_terminal: bool = False, transient: bool = False
) -> Progress:
    """Return a bar that lives as long as its `with` block; each of its tasks is one line.

    Args:
        console: where it is shown.
        counted: what stands behind the count, such as 'rollouts, {task.fields[successes]} good';
            fields are given to `add_task` and `update`.
        only_on_terminal: show nothing where lines cannot be drawn over, such as a log file.
        transient: leave nothing behind.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(counted),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=only_on_terminal and not console.is_terminal,
        transient=transient,
    )
