# SPDX-License-Identifier: Apache-2.0
"""The examples of README.md and docs/, taken out of the pages and scaled down to run as tests."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

NOT_RUN = re.compile(r"<!-- not run: .+ -->")
"""Stands on the line above an example that needs the hub or is a sketch."""

SMALLER = (
    (r"--episodes=\d+", "--episodes=2"),
    (r"--steps=\d+", "--steps=2"),
    (r"--batch_size=\d+", "--batch_size=4"),
    (r"--log_freq=\d+", "--log_freq=1"),
    (r"--eval\.n_episodes=\d+", "--eval.n_episodes=1"),
    (r"train --resume=true", "train --resume=true --steps=3"),
    (r"outputs/train/\.\.\./", "outputs/train/windows/"),
)
"""What is replaced before a command runs: the same flags, less work."""


@dataclass(frozen=True)
class Block:
    """One fenced example."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[list[str]]:
        """Return the `vlakit` commands of a shell example, as lists of arguments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [shlex.split(line)[1:] for line in lines if line.startswith("vlakit ")]

    def smaller(self) -> Block:
        """Return the example with less work to do."""
        text = self.text
        for pattern, replacement in SMALLER:
            text = re.sub(pattern, replacement, text)
        return Block(self.page, self.line, self.language, text)


def blocks(page: Path, language: str) -> Iterator[Block]:
    """Yield the examples of a page in one language, without those marked as not run."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        if start is None and line.startswith("```"):
            start = number
        elif start is not None and line == "```":
            found = lines[start].removeprefix("```").strip()
            is_run = not NOT_RUN.fullmatch(lines[start - 1].strip())
            if found == language and is_run:
                yield Block(page, start + 1, language, "\n".join(lines[start + 1 : number]))
            start = None
