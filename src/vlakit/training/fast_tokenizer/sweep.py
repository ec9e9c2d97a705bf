# SPDX-License-Identifier: Apache-2.0
"""Vocabularies and scales side by side, so that a user can choose."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console

from vlakit.errors import ConfigError, ProcessingError
from vlakit.files import write_json, written_whole
from vlakit.progress import progress_bar
from vlakit.training.fast_tokenizer.data import TrainingData
from vlakit.training.fast_tokenizer.fit import train
from vlakit.training.fast_tokenizer.report import Measured, measure

VOCAB_SIZES = (320, 512, 1024, 2048)
SCALES = (3.0, 5.0, 10.0, 15.0, 25.0)
MAX_MEASURED = 4000
SWEEP_JSON, SWEEP_MARKDOWN = "sweep.json", "sweep.md"
COLUMNS = (
    "scale",
    "vocab",
    "ids used",
    "tokens",
    "per token",
    "error",
    "saturated",
)
LEGEND = (
    "tokens of a chunk: mean, p99, max; numbers per token; absolute error in normalised units: "
    "mean, p99; chunks that cannot be encoded"
)


@dataclass(frozen=True)
class Candidate:
    """One combination of the sweep."""

    scale: float
    vocab_size: int
    is_given: bool
    """Whether `--vocab_size` and `--scale` name it."""
    measured: Measured | None
    size: int
    """Ids that the vocabulary really has; 0 where it is impossible."""
    impossible: str
    """Why there is no such tokenizer; empty where there is."""

    def cells(self) -> list[str]:
        """Return the row of the table, as `COLUMNS` names them."""
        head = [f"{self.scale:g}", f"{self.vocab_size}{' *' if self.is_given else ''}"]
        if self.measured is None:
            return [*head, *["-"] * (len(COLUMNS) - len(head))]
        m = self.measured
        return [
            *head,
            f"{m.vocabulary_used}/{self.size}",
            f"{m.tokens.mean:.1f}, {m.tokens.p99:.0f}, {m.tokens.max:.0f}",
            f"{m.compression_ratio:.1f}",
            f"{m.error.mean:.4f}, {m.error.p99:.4f}",
            f"{m.saturated_chunks:.2%}",
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the entry of `sweep.json`."""
        return {
            "scale": self.scale,
            "vocab_size": self.vocab_size,
            "given": self.is_given,
            "size": self.size,
            "impossible": self.impossible or None,
            **(self.measured.to_json() if self.measured else {}),
        }


def sweep(data: TrainingData, console: Console) -> list[Candidate]:
    """Fit and measure every combination, those of the flags among them; nothing is written."""
    given = (data.flags.scale, data.flags.vocab_size)
    grid = sorted({*product(SCALES, VOCAB_SIZES), given})
    candidates = []
    with progress_bar(console, "tokenizers", only_on_terminal=True) as bars:
        bar = bars.add_task("sweep", total=len(grid))
        for scale, vocab_size in grid:
            measured, size, impossible = None, 0, ""
            try:
                tokenizer = train(data, vocab_size, scale)
                measured = measure(tokenizer, data.chunks, max_chunks=MAX_MEASURED)
                size = tokenizer.vocab_size
            except (ConfigError, ProcessingError) as error:
                impossible = str(error)
            is_given = (scale, vocab_size) == given
            candidates.append(Candidate(scale, vocab_size, is_given, measured, size, impossible))
            bars.advance(bar)
    return candidates


def save_sweep(candidates: list[Candidate], data: TrainingData, folder: Path) -> None:
    """Write `sweep.json` and `sweep.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "repo_id": data.flags.repo_id,
        "action_horizon": data.flags.action_horizon,
        "encoded_dims": data.dimensions.text,
        "normalization_mode": data.flags.normalization_mode,
        "num_training_chunks": len(data.training),
        "candidates": [candidate.to_json() for candidate in candidates],
    }
    write_json(folder / SWEEP_JSON, content, indent=2)
    with written_whole(folder / SWEEP_MARKDOWN) as part:
        part.write_text(markdown(candidates, data), encoding="utf-8")


def markdown(candidates: list[Candidate], data: TrainingData) -> str:
    """Return the content of `sweep.md`."""
    flags = data.flags
    lines = [
        f"# FAST tokenizers for {flags.repo_id}",
        "",
        f"Chunks of {flags.action_horizon} x {len(data.dimensions.encoded)} numbers, "
        f"{flags.normalization_mode}, fitted on {len(data.training)} of them; {LEGEND}. "
        "`*`: the `--vocab_size` and `--scale` of the command.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + " --- |" * len(COLUMNS),
        *("| " + " | ".join(candidate.cells()) + " |" for candidate in candidates),
        "",
        *(f"- {line}" for line in impossible_lines(candidates)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def impossible_lines(candidates: list[Candidate]) -> list[str]:
    """Return why combinations are impossible, one line for each."""
    return [
        f"scale {c.scale:g}, vocabulary {c.vocab_size}: {c.impossible}"
        for c in candidates
        if c.impossible
    ]
