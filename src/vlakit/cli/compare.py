# SPDX-License-Identifier: Apache-2.0
"""`vlakit eval --compare A B`: two evaluations, or two checkpoints, on the same episodes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from vlakit.cli.output_folder import check_can_be_made
from vlakit.errors import ConfigError
from vlakit.evaluation.output_files import OutputFiles
from vlakit.evaluation.results import INFO_FILE

if TYPE_CHECKING:
    from vlakit.evaluation.compare import Comparison

FLAG = "--compare"
HELP = {
    "compare": "Two output folders of evaluations, or two checkpoints that are then evaluated with "
    "the other flags: --compare A B. Writes compare.json and compare.html."
}


@dataclass(frozen=True)
class CompareArguments:
    """What stands on a command line with `--compare`."""

    a: str
    b: str
    output_dir: Path
    others: list[str]
    """Every other flag."""


def is_comparison(argv: Sequence[str]) -> bool:
    """Return whether a command line asks for a comparison."""
    return any(argument == FLAG or argument.startswith(f"{FLAG}=") for argument in argv)


def read_arguments(argv: Sequence[str], now: datetime) -> CompareArguments:
    """Take `--compare A B` (or `--compare=A B`) and `--output_dir` out of a command line.

    Raises:
        ConfigError: There are not two.
    """
    words = [word for argument in argv for word in _split(argument, FLAG)]
    place = words.index(FLAG)
    given = words[place + 1 : place + 3]
    if len(given) < 2 or any(word.startswith("--") for word in given):
        raise ConfigError(
            f"{FLAG} needs two evaluations or two checkpoints, but has "
            f"{' '.join(given[:1]) or 'nothing'}: write {FLAG} outputs/eval/a outputs/eval/b."
        )
    rest = [
        word
        for other in words[:place] + words[place + 3 :]
        for word in _split(other, "--output_dir")
    ]
    output_dir = Path("outputs/eval") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_compare"
    while "--output_dir" in rest:
        at = rest.index("--output_dir")
        output_dir = Path(*rest[at + 1 : at + 2])
        del rest[at : at + 2]
    return CompareArguments(given[0], given[1], output_dir, rest)


def _split(argument: str, flag: str) -> list[str]:
    return (
        [flag, argument.removeprefix(f"{flag}=")] if argument.startswith(f"{flag}=") else [argument]
    )


def main(argv: Sequence[str], evaluate: Callable[[Sequence[str]], int]) -> int:
    """Run the comparison.

    Args:
        argv: Arguments after `vlakit eval`.
        evaluate: `vlakit eval` itself, for checkpoints.
    """
    from vlakit.evaluation.compare import compare
    from vlakit.evaluation.saved import load_result

    given = read_arguments(argv, datetime.now())
    check_can_be_made(given.output_dir, "--output_dir")
    is_evaluation = [(Path(path) / INFO_FILE).is_file() for path in (given.a, given.b)]
    if all(is_evaluation):
        if given.others:
            raise ConfigError(
                f"{FLAG} {given.a} {given.b}: both are finished evaluations, so "
                f"{' '.join(given.others)} has no effect. Leave it out."
            )
        folders = (Path(given.a), Path(given.b))
    elif any(is_evaluation):
        done, other = (given.a, given.b) if is_evaluation[0] else (given.b, given.a)
        raise ConfigError(
            f"{FLAG}: {done} is a finished evaluation (it has {INFO_FILE}), {other} is not; "
            "expected two evaluations or two checkpoints. Evaluate the other one first."
        )
    else:
        folders = (given.output_dir / "a", given.output_dir / "b")
        for path, folder in zip((given.a, given.b), folders, strict=True):
            flags = _flags_for(folder, given.others)
            evaluate([f"--policy.path={path}", *flags, f"--output_dir={folder}"])
        if os.environ.get("RANK", "0") != "0":
            return 0  # torchrun started several: the first one writes
    comparison = compare(load_result(folders[0]), load_result(folders[1]))
    _write(comparison, folders, given, argv, Console(stderr=True))
    return 0


def _flags_for(folder: Path, flags: Sequence[str]) -> list[str]:
    """Return the flags of one evaluation: one that was never begun has nothing to resume."""
    if OutputFiles(folder).config.is_file():
        return list(flags)
    return [flag for flag in flags if flag not in ("--resume", "--resume=true")]


def _write(
    comparison: Comparison,
    folders: tuple[Path, Path],
    given: CompareArguments,
    argv: Sequence[str],
    console: Console,
) -> None:
    from vlakit.evaluation.compare import COMPARISON_FILE
    from vlakit.evaluation.compare_page import PAGE_FILE, comparison_page, verdict
    from vlakit.files import write_json, written_whole

    target = given.output_dir
    target.mkdir(parents=True, exist_ok=True)
    names = {"a": given.a, "b": given.b}
    write_json(target / COMPARISON_FILE, names | comparison.to_json(), indent=2)
    line = shlex.join(["vlakit", "eval", *argv])
    with written_whole(target / PAGE_FILE) as part:
        text = comparison_page(comparison, folders, target, command_line=line)
        part.write_text(text, encoding="utf-8")
    console.print(comparison_table(comparison))
    for text in (verdict(comparison.pooled), target / COMPARISON_FILE, target / PAGE_FILE):
        console.print(str(text), highlight=False, soft_wrap=True)


def comparison_table(comparison: Comparison) -> Table:
    """Return both rates, their difference and the p-value of every task and of all."""
    table = Table(title="A and B on the same episodes")
    table.add_column("task", overflow="fold")
    for column in ("A", "B", "B - A", "only A, B", "p", "pairs"):
        table.add_column(column, no_wrap=True)
    for task in comparison.tasks:
        table.add_row(task.name, *_cells(task.to_json()))
    if len(comparison.tasks) > 1:
        table.add_section()
        table.add_row("all", *_cells(comparison.pooled.to_json()))
    return table


def _cells(entry: dict) -> list[str]:
    if not entry["n_pairs"]:
        return ["–"] * 5 + [f"0 ({entry['n_errors']} errors)"]
    errors = f" ({entry['n_errors']} left out)" if entry["n_errors"] else ""
    rates = []
    for name in "ab":
        low, high = entry[f"pc_success_{name}_interval_95"]
        rates.append(f"{entry[f'pc_success_{name}']:.0f} %\n[{low:.0f}, {high:.0f}]")
    low, high = entry["pc_difference_interval_95"]
    return [
        *rates,
        f"{entry['pc_difference']:+.0f} %\n[{low:+.0f}, {high:+.0f}]",
        f"{entry['only_a']}, {entry['only_b']}",
        f"{entry['mcnemar_p']:.2g}",
        f"{entry['n_pairs']}{errors}",
    ]
