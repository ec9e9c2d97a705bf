# SPDX-License-Identifier: Apache-2.0
"""Fit a FAST tokenizer to training chunks, measure it, save it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from vlakit.files import write_json
from vlakit.processing.fast.tokenizer import FastTokenizer
from vlakit.progress import progress_bar
from vlakit.training.fast_tokenizer.data import TrainingData
from vlakit.training.fast_tokenizer.notices import data_notices, tokenizer_notices
from vlakit.training.fast_tokenizer.report import (
    MAX_MEASURED,
    Measured,
    compression_stats,
    measure,
)

METADATA_FILE = "metadata.json"
REPORT_FILE = "report.json"


def train(data: TrainingData, vocab_size: int, scale: float) -> FastTokenizer:
    """Return a tokenizer fitted on the training chunks, its normaliser beside it."""
    tokenizer = FastTokenizer.train(
        data.training, vocab_size=vocab_size, scale=scale, regex_split=data.flags.regex_split
    )
    tokenizer.normalizer = data.normalizer()
    return tokenizer


@dataclass(frozen=True)
class Fitted:
    """A tokenizer and what is known of it."""

    data: TrainingData
    tokenizer: FastTokenizer
    measured: Measured
    compression: dict[str, float]

    def metadata(self) -> dict[str, Any]:
        """Return LeRobot's `metadata.json`."""
        flags, dimensions = self.data.flags, self.data.dimensions
        return {
            "repo_id": flags.repo_id,
            "vocab_size": flags.vocab_size,
            "scale": flags.scale,
            "encoded_dims": flags.encoded_dims or dimensions.text,
            "encoded_dim_ranges": dimensions.ranges,
            "total_encoded_dims": len(dimensions.encoded),
            "relative_dims": flags.relative_dims,
            "relative_dim_list": flags.relative_dim_list() or None,
            "use_relative_transform": flags.use_relative_transform,
            "state_key": flags.state_key,
            "normalization_mode": flags.normalization_mode,
            "action_horizon": flags.action_horizon,
            "num_training_chunks": len(self.data.sampled),
            "compression_stats": self.compression,
        }

    def report(self) -> dict[str, Any]:
        """Return the content of `report.json`."""
        data = self.data
        clipped = dict(zip(data.dimensions.encoded, data.clipped_share.tolist(), strict=True))
        return {
            "chunks": {
                "training": len(data.training),
                "episodes": len(data.actions.episodes),
                "episodes_too_short": data.chunks.num_skipped,
                "dataset": len(data.chunks.all_rows),
                "measured": self.measured.num_chunks,
            },
            "vocabulary": {"size": self.tokenizer.vocab_size, "asked": data.flags.vocab_size},
            "min_token": self.tokenizer.min_token,
            "reference": data.flags.reference,
            "clipped_training_share": float(data.clipped_share.mean()),
            "clipped_training_share_by_dimension": clipped,
            **self.measured.to_json(),
        }

    def notices(self) -> list[str]:
        """Return what a user should know before using the tokenizer."""
        return [
            *data_notices(self.data),
            *tokenizer_notices(self.data, self.tokenizer, self.measured),
        ]

    def save(self, folder: Path) -> None:
        """Write the tokenizer, its normaliser, `metadata.json` and `report.json`."""
        self.tokenizer.save_pretrained(folder)
        write_json(folder / METADATA_FILE, self.metadata(), indent=2)
        write_json(folder / REPORT_FILE, self.report(), indent=2)


def fit(data: TrainingData, console: Console) -> Fitted:
    """Fit and measure a tokenizer, with bars for the long parts."""
    count = min(MAX_MEASURED, len(data.chunks.all_rows))
    with progress_bar(console, "{task.fields[what]}", only_on_terminal=True) as bars:
        bar = bars.add_task("fit", total=None, what="chunks")
        training = data.training
        tokenizer = train(data, data.flags.vocab_size, data.flags.scale)
        bars.update(bar, total=len(training), completed=len(training))
        bar = bars.add_task("measure", total=count, what="chunks")
        measured = measure(tokenizer, data.chunks, advance=_advance(bars.advance, bar))
    return Fitted(data, tokenizer, measured, compression_stats(tokenizer, data.sampled))


def _advance(advance: Callable[..., object], bar: Any) -> Callable[[int], object]:
    return lambda count: advance(bar, count)
