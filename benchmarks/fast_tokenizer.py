# SPDX-License-Identifier: Apache-2.0
"""How long does it take to turn action chunks into FAST tokens and back, and to fit a tokenizer?

Encodes and decodes 10,000 chunks of 10 x 7 and of 50 x 14 numbers on one thread. The reference is
LeRobot's port of the FAST processor, called chunk by chunk as its training does; both sides load
the same tokenizer. Ids must be equal, decoded chunks within 1e-12. `first_ms` is our first encoding
after loading, tables included. Fitting has no reference: the trainer of the tokenizers library is
the same on both sides, and `trainer_share` says how much of our time it takes.

    python benchmarks/fast_tokenizer.py [--reference-python PYTHON] [--repeats 5]

Prints one JSON line per case.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from harness.reference_process import Reference
from harness.timing import OURS, REFERENCE, Side, make_parser, report, take_turns, timed
from numpy.typing import NDArray

from vlakit.processing import FastTokenizer
from vlakit.processing.fast import tokenizer as tokenizer_module

BATCH = 10_000
FITTED = 100_000
SHAPES = ((10, 7), (50, 14))
TOLERANCE = 1e-12


def make_chunks(batch: int, horizon: int, action_dim: int, seed: int) -> NDArray[np.float64]:
    """Return smooth random motions with a little noise, and a gripper that closes at some time."""
    generator = np.random.default_rng(seed)
    shape = (batch, 1, action_dim)
    at = np.linspace(0, 1, horizon)[None, :, None]
    chunks = generator.uniform(-0.8, 0.8, shape) + generator.normal(
        0, 0.01, (batch, horizon, action_dim)
    )
    for wave in range(1, 4):
        amplitude = generator.normal(0, 0.25 / wave, shape)
        speed, phase = generator.uniform(0.2, 0.8, shape), generator.uniform(0, 2 * np.pi, shape)
        chunks += amplitude * np.sin(2 * np.pi * wave * speed * at + phase)
    closes = at[:, :, 0] > generator.uniform(0, 1.5, (batch, 1))
    chunks[:, :, -1] = np.where(closes, 1.0, -1.0)
    return np.clip(chunks, -1.2, 1.2)


def compare(
    shape: tuple[int, int], folder: Path, repeats: int, reference: Reference | None
) -> None:
    """Print the lines of encoding and decoding chunks of one shape."""
    chunks = make_chunks(BATCH, *shape, seed=1)
    FastTokenizer.train(chunks).save_pretrained(folder / "tokenizer")
    np.save(folder / "chunks.npy", chunks)
    ours = FastTokenizer.from_pretrained(folder / "tokenizer")
    first_ms = timed(lambda: ours.encode(chunks))()
    ids = ours.encode(chunks)
    decoded = ours.decode(ids)
    details: dict[str, Any] = {"chunks": BATCH, "tokens_per_chunk": sum(map(len, ids)) / BATCH}
    sides: dict[str, dict[str, Side]] = {
        "encode": {OURS: timed(lambda: ours.encode(chunks))},
        "decode": {OURS: timed(lambda: ours.decode(ids))},
    }
    if reference is not None:
        details["reference_versions"] = reference.call("load")
        for work, side in sides.items():
            side[REFERENCE] = reference.side(work)
        reference.call("encode", save=True)
        reference.call("decode", save=True)
        assert json.loads((folder / "ids.json").read_text(encoding="utf-8")) == ids
        details["difference"] = float(np.abs(np.load(folder / "decoded.npy") - decoded).max())
        assert details["difference"] < TOLERANCE
    for work, side in sides.items():
        extra = {"first_ms": round(first_ms, 2)} if work == "encode" else {}
        times = take_turns(side, repeats=repeats)
        report(f"{work} {shape[0]}x{shape[1]}", times, **extra, **details)


def fit(shape: tuple[int, int]) -> None:
    """Print the line of fitting on many chunks of one shape."""
    chunks = make_chunks(FITTED, *shape, seed=2)
    spent_ms = 0.0
    train_bpe = tokenizer_module.train_bpe

    def measured(*args: Any, **kwargs: Any) -> Any:
        nonlocal spent_ms
        start = time.perf_counter()
        bpe = train_bpe(*args, **kwargs)
        spent_ms += 1e3 * (time.perf_counter() - start)
        return bpe

    with mock.patch.object(tokenizer_module, "train_bpe", measured):
        total_ms = timed(lambda: FastTokenizer.train(chunks))()
    share = round(spent_ms / total_ms, 3)
    report(f"fit {shape[0]}x{shape[1]}", {"fit": [total_ms]}, chunks=FITTED, trainer_share=share)


def main() -> None:
    flags = make_parser(__doc__, repeats=5).parse_args()
    torch.set_num_threads(flags.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for shape in SHAPES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if flags.reference_python is None:
                compare(shape, folder, flags.repeats, None)
                continue
            script = "fast_tokenizer.py"
            with Reference(flags.reference_python, script, folder, flags.threads) as reference:
                compare(shape, folder, flags.repeats, reference)
    for shape in SHAPES:
        fit(shape)


if __name__ == "__main__":
    main()
