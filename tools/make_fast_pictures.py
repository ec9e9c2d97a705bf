# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of `docs/fast.md`: a recorded chunk, its DCT, its coefficients, its tokens.

    vlakit collect --env.type=metaworld --env.task=reach-v3,drawer-close-v3 \
        --repo_id=local/two --root=data/two --episodes=12
    python tools/make_fast_pictures.py data/two

The chunk drawn is the one with the most tokens among the shorter three quarters.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from vlakit.processing import FastTokenizer
from vlakit.processing.fast.dct import dct_matrix, quantized_dct
from vlakit.training.fast_tokenizer.data import TrainingData, read_training_data
from vlakit.training.fast_tokenizer.fit import fit, train
from vlakit.training.tokenizer_config import TokenizerFlags

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
HORIZON, SCALE, VOCAB_SIZE = 16, 10.0, 512
SCALES = (3.0, 10.0, 25.0)
SHARPER = 2
"""Pictures are drawn this many times larger and shrunk: smooth lines without a plotting library."""
INK, PALE, WHITE = "#1f2933", "#9aa5b1", "#ffffff"
LINES = ("#0b6e99", "#d9730d", "#448361", "#9065b0", "#c14c8a", "#787774", "#cb912f")
TOKENS = ("#d3e5ef", "#fadec9", "#dbeddb", "#e8deee", "#f5e0e9", "#fdecc8", "#e3e2e0")


class Canvas:
    """A white picture, drawn in the units of the finished one."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        self._image = Image.new("RGB", (width * SHARPER, height * SHARPER), WHITE)
        self._draw = ImageDraw.Draw(self._image)

    def line(self, points: list[tuple[float, float]], color: str, width: float = 2) -> None:
        scaled = [(x * SHARPER, y * SHARPER) for x, y in points]
        self._draw.line(scaled, color, round(width * SHARPER), joint="curve")

    def dot(self, x: float, y: float, color: str, radius: float = 3) -> None:
        box = [v * SHARPER for v in (x - radius, y - radius, x + radius, y + radius)]
        self._draw.ellipse(box, fill=color)

    def box(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        self._draw.rectangle(
            [v * SHARPER for v in (x, y, x + width, y + height)], fill, WHITE, SHARPER
        )

    def text(
        self, x: float, y: float, text: str, color: str = INK, size: int = 13, anchor: str = "lm"
    ) -> None:
        font = ImageFont.load_default(size * SHARPER)
        self._draw.text((x * SHARPER, y * SHARPER), text, color, font, anchor)

    def save(self, path: Path) -> None:
        self._image.resize(self.size, Image.Resampling.LANCZOS).save(path, optimize=True)
        print(path)


def plot(
    canvas: Canvas,
    at: tuple[float, float],
    size: tuple[float, float],
    chunk: NDArray[np.float64],
    decoded: NDArray[np.float64] | None = None,
) -> None:
    """Draw a chunk (horizon, dims) as one line per dimension, the decoded one as dots."""
    (left, top), (width, height) = at, size
    both = chunk if decoded is None else np.concatenate([chunk, decoded])
    low, high = min(-1.0, float(both.min())), max(1.0, float(both.max()))

    def place(step: int, value: float) -> tuple[float, float]:
        share = (value - low) / (high - low)
        return left + width * step / (len(chunk) - 1), top + height * (1 - share)

    for level in (-1, 0, 1):
        y = place(0, level)[1]
        canvas.line([(left, y), (left + width, y)], "#e4e7eb", 1)
        canvas.text(left - 8, y, str(level), PALE, 12, "rm")
    for dim in range(chunk.shape[1]):
        color = LINES[dim % len(LINES)]
        canvas.line([place(step, chunk[step, dim]) for step in range(len(chunk))], color)
        if decoded is not None:
            for step in range(len(chunk)):
                canvas.dot(*place(step, decoded[step, dim]), color)


def shade(value: float) -> str:
    """Return the colour of a coefficient: blue below zero, orange above."""
    strength = min(1.0, abs(value) / 25) ** 0.5
    full = (11, 110, 153) if value < 0 else (217, 115, 13)
    mixed = [round(255 + (part - 255) * 0.75 * strength) for part in full]
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def grid(canvas: Canvas, at: tuple[float, float], values: NDArray[np.float64], form: str) -> None:
    """Draw coefficients (frequencies, dims) as a table."""
    left, top = at
    for (frequency, dim), value in np.ndenumerate(values):
        x, y = left + 54 * dim, top + 20 * frequency
        canvas.box(x, y, 54, 20, shade(value))
        is_zero = format(value, form).strip("-") in ("0", "0.0")
        canvas.text(x + 27, y + 10, format(value, form), PALE if is_zero else INK, 12, "mm")


def token_lengths(tokenizer: FastTokenizer, ids: list[int]) -> list[int]:
    """Return how many coefficients each token begins to spell."""
    return [sum(byte & 0xC0 != 0x80 for byte in tokenizer.token_bytes[id_]) for id_ in ids]


def strip(
    canvas: Canvas, at: tuple[float, float], coefficients: list[int], ids: list[int],
    lengths: list[int],
) -> None:  # fmt: skip
    """Draw the coefficients in reading order, one colour per token, its id above its first."""
    left, top = at
    place = 0
    for number, (id_, length) in enumerate(zip(ids, lengths, strict=True)):
        for step in range(length):
            column, row = place % 32, place // 32
            x, y = left + 33 * column, top + 52 * row
            canvas.box(x, y + 18, 33, 22, TOKENS[number % len(TOKENS)])
            value = coefficients[place]
            canvas.text(x + 16, y + 29, str(value), INK if value else PALE, 12, "mm")
            if step == 0:
                canvas.text(x + 3, y + 9, str(id_), LINES[number % len(LINES)], 12)
            place += 1


def chosen_chunk(data: TrainingData, tokenizer: FastTokenizer) -> NDArray[np.float64]:
    """Return the chunk (horizon, dims) with the most tokens among the shorter three quarters."""
    chunks = data.chunks.met(data.chunks.sampled_rows(1.0))
    lengths = np.array([len(row) for row in tokenizer.encode(chunks)])
    allowed = np.where(lengths <= np.percentile(lengths, 75), lengths, 0)
    return chunks[allowed.argmax()]


def draw_steps(data: TrainingData, tokenizer: FastTokenizer) -> None:
    """Draw `fast-steps.png`: the chunk and what each step makes of it."""
    chunk = chosen_chunk(data, tokenizer)
    exact = np.round(dct_matrix(HORIZON) @ chunk * tokenizer.scale, 1) + 0.0  # no "-0.0"
    rounded = quantized_dct(chunk[None], tokenizer.scale)[0]
    (ids,) = tokenizer.encode(chunk)
    decoded = tokenizer.decode([ids])[0]
    canvas = Canvas(1120, 600)
    labels = [data.actions.names[dim] for dim in data.dimensions.encoded]
    canvas.text(40, 24, "1  normalised chunk (lines), decoded again (dots)", size=15)
    plot(canvas, (60, 60), (430, 270), chunk, decoded)
    for dim, label in enumerate(labels):
        canvas.text(60 + 80 * dim, 352, label, LINES[dim])
        for left in (560, 850):
            canvas.text(left + 27 + 54 * dim, 52, label, LINES[dim], 12, "mm")
    canvas.text(275, 376, f"{HORIZON} steps, {data.actions.fps:g} per second", PALE, 12, "mm")
    canvas.text(545, 24, f"2  DCT along time, times scale {tokenizer.scale:g}", size=15)
    canvas.text(840, 24, "3  rounded", size=15)
    grid(canvas, (560, 64), exact, ".1f")
    grid(canvas, (850, 64), rounded.reshape(HORIZON, -1) + 0.0, ".0f")
    for frequency in (0, HORIZON - 1):
        word = "slowest" if frequency == 0 else "fastest"
        canvas.text(552, 74 + 20 * frequency, word, PALE, 12, "rm")
    title = (
        f"4  row by row, merged into {len(ids)} tokens of a vocabulary of {tokenizer.vocab_size}: "
        "a colour is a token, above it its id"
    )
    canvas.text(40, 424, title, size=15)
    strip(canvas, (34, 446), [int(c) for c in rounded], ids, token_lengths(tokenizer, ids))
    rows = -(-len(rounded) // 32)
    numbers = f"{len(rounded)} numbers, {len(ids)} tokens"
    canvas.text(40, 462 + 52 * rows, numbers, PALE)
    canvas.save(IMAGES / "fast-steps.png")


def draw_scales(data: TrainingData, tokenizer: FastTokenizer) -> None:
    """Draw `fast-scales.png`: the same chunk at several scales."""
    chunk = chosen_chunk(data, tokenizer)
    canvas = Canvas(1120, 330)
    for place, scale in enumerate(SCALES):
        other = train(data, VOCAB_SIZE, scale)
        (ids,) = other.encode(chunk)
        decoded = other.decode([ids])[0]
        left, error = 50 + 370 * place, np.abs(decoded - chunk)
        title = f"scale {scale:g}: {len(ids)} tokens, error {error.mean():.3f}, at most "
        canvas.text(left - 30, 24, f"{title}{error.max():.3f}", size=14)
        plot(canvas, (left, 54), (290, 240), chunk, decoded)
    canvas.save(IMAGES / "fast-scales.png")


def main() -> int:
    """Fit a tokenizer to the dataset given and draw."""
    flags = TokenizerFlags(
        repo_id=sys.argv[1],
        action_horizon=HORIZON,
        scale=SCALE,
        vocab_size=VOCAB_SIZE,
        sample_fraction=1.0,
    )
    data = read_training_data(flags)
    fitted = fit(data, Console(stderr=True))
    draw_steps(data, fitted.tokenizer)
    draw_scales(data, fitted.tokenizer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
