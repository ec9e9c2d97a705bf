# SPDX-License-Identifier: Apache-2.0
"""What a tokenizer makes of a dataset: tokens per chunk, error, what it cannot encode.

Measured on chunks as a policy meets them, one per frame: not clipped, filled up at the end of an
episode. LeRobot's own figures (`compression_stats`) are of the training chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlakit.processing.fast.dct import quantized_dct
from vlakit.processing.fast.tokenizer import FastTokenizer
from vlakit.training.fast_tokenizer.chunks import Chunks

MAX_MEASURED = 20_000
"""Chunks that are encoded for the report; of larger datasets evenly spaced ones."""
FIXED_TOKENS = 6
"""Around the codes of a chunk: BOS, the three of `Action: `, `|`, EOS (openpi's layout: no BOS)."""
COMPRESSION_CHUNKS = 1000

Advance = Callable[[int], object]


@dataclass(frozen=True)
class Spread:
    """How a quantity is distributed."""

    mean: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: NDArray) -> Spread:
        """Summarise values of any shape."""
        return cls(float(values.mean()), float(np.percentile(values, 99)), float(values.max()))

    def times(self, factor: float) -> Spread:
        """Return the same in other units."""
        return Spread(self.mean * factor, self.p99 * factor, self.max * factor)


@dataclass(frozen=True)
class DimensionError:
    """The reconstruction error of one action dimension, absolute."""

    dim: int
    name: str
    normalized: Spread
    physical: Spread
    """In the robot's units."""


@dataclass(frozen=True)
class Measured:
    """What a tokenizer makes of the chunks of a dataset."""

    num_chunks: int
    compression_ratio: float
    """Numbers of a chunk per token."""
    tokens: Spread
    error: Spread
    """Absolute reconstruction error of all dimensions, normalised units."""
    error_by_dimension: list[DimensionError]
    saturated_coefficients: float
    """Share of coefficients below the lowest that the tokenizer has."""
    saturated_chunks: float
    """Share of chunks with such a coefficient: encoding them is an error, or a loss on request."""
    lowest_coefficient: int
    vocabulary_used: int
    """Ids that occur."""

    def max_action_tokens(self) -> dict[str, int]:
        """Return the `--policy.max_action_tokens` that 99 % of the chunks, or all, need."""
        return {
            "p99": int(np.ceil(self.tokens.p99)) + FIXED_TOKENS,
            "max": int(self.tokens.max) + FIXED_TOKENS,
            "fixed_tokens": FIXED_TOKENS,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the figures as `report.json` has them."""
        return asdict(self) | {"max_action_tokens": self.max_action_tokens()}


def measure(
    tokenizer: FastTokenizer,
    chunks: Chunks,
    *,
    max_chunks: int = MAX_MEASURED,
    advance: Advance = lambda count: None,
) -> Measured:
    """Encode and decode chunks of the dataset.

    Args:
        tokenizer: fitted on chunks of this shape.
        chunks: of the dataset.
        max_chunks: evenly spaced ones are taken of more.
        advance: told how many chunks are done, block by block.
    """
    rows = evenly(chunks.all_rows, max_chunks)
    lengths, errors = [], []
    used: set[int] = set()
    low, low_chunks, lowest = 0, 0, np.inf
    for block, values in chunks.blocks(rows):
        ids = tokenizer.encode(values, on_error="reference")  # what is lost is counted below
        lengths += [len(row) for row in ids]
        used.update(*ids)
        errors.append(np.abs(tokenizer.decode(ids) - values))
        coefficients = quantized_dct(values, tokenizer.scale)
        is_low = coefficients < tokenizer.min_token
        low, low_chunks = low + int(is_low.sum()), low_chunks + int(is_low.any(axis=1).sum())
        lowest = min(lowest, float(coefficients.min()))
        advance(len(block))
    error, size = np.concatenate(errors), chunks.horizon * len(chunks.dims)
    return Measured(
        num_chunks=len(rows),
        compression_ratio=size / float(np.mean(lengths)),
        tokens=Spread.of(np.array(lengths)),
        error=Spread.of(error),
        error_by_dimension=_by_dimension(error, chunks),
        saturated_coefficients=low / (len(rows) * size),
        saturated_chunks=low_chunks / len(rows),
        lowest_coefficient=int(lowest),
        vocabulary_used=len(used),
    )


def _by_dimension(error: NDArray, chunks: Chunks) -> list[DimensionError]:
    names = chunks.actions.names
    found = []
    for place, dim in enumerate(chunks.dims):
        spread = Spread.of(error[:, :, place])
        name = names[dim] if names else ""
        found.append(DimensionError(dim, name, spread, spread.times(float(chunks.unit[place]))))
    return found


def evenly(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return at most `count` of the rows, evenly spaced, the first and the last among them."""
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]


def compression_stats(tokenizer: FastTokenizer, training_chunks: NDArray) -> dict[str, float]:
    """Return LeRobot's figures, over the same sample of the training chunks."""
    # Parity: the seed, the sample and the names are LeRobot's.
    count = min(COMPRESSION_CHUNKS, len(training_chunks))
    picked = np.random.RandomState(42).choice(len(training_chunks), size=count, replace=False)
    lengths = _lengths(tokenizer.encode(training_chunks[picked]))
    return {
        "compression_ratio": training_chunks[0].size / float(lengths.mean()),
        "mean_token_length": float(lengths.mean()),
        "p99_token_length": float(np.percentile(lengths, 99)),
        "min_token_length": float(lengths.min()),
        "max_token_length": float(lengths.max()),
    }


def _lengths(ids: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    return np.array([len(row) for row in ids])
