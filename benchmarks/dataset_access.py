# SPDX-License-Identifier: Apache-2.0
"""How fast do random training batches come out of a dataset, compared with LeRobot's class?

Two questions, both about the same dataset v3.0 on both sides, whose values are compared.

`--question batch`: 64 random frames of one 128x128 camera, each with an 8-step action chunk, in
this process and without workers. Ours is measured the way training reads it (`get_batch`), item by
item like the reference, and from memory (`cache_frames`).

`--question loader`: samples per second through each side's own loader, batch 8, action chunk 10,
without workers and with two: two cameras of 256x256 as video (ours also from the frame cache on
disk, raw and jpeg), and no cameras at all.

    python benchmarks/dataset_access.py [--reference-python PYTHON] [--threads 1]

Prints one JSON line per case.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import dataset_loaders
from harness.reference_process import Reference
from harness.timing import OURS, REFERENCE, make_parser, report, take_turns, timed
from harness.workload import TASKS
from safetensors.torch import load_file
from torch.utils.data import default_collate

from vlakit.datasets import LeRobotDataset, LeRobotDatasetWriter
from vlakit.datasets.action_window import chunk_delta_timestamps

CODECS = ("libsvtav1", "h264")
CAMERA, FPS, SIDE = "observation.images.cam", 20, 128
EPISODES, LENGTH, BATCH, CHUNK = 20, 100, 64, 8
FEATURES = {
    CAMERA: {"dtype": "video", "shape": (SIDE, SIDE, 3), "names": ["height", "width", "channels"]},
    "observation.state": {"dtype": "float32", "shape": (8,), "names": None},
    "action": {"dtype": "float32", "shape": (4,), "names": None},
}
PIXEL_TOLERANCE = (1.5, 8)
"""Mean and largest difference of a pixel: the sides may bring other versions of libswscale."""
JPEG_TOLERANCE = (4.0, 64)
"""The same for frames from the JPEG cache."""
LOADER_BATCHES = {
    "video": {OURS: 120, REFERENCE: 40},
    "low-dimensional": {OURS: 4000, REFERENCE: 120},
}
"""Measured in a turn, by side: each runs for some seconds."""


def write_dataset(root: Path, codec: str) -> None:
    """Write episodes of a square that moves over a still, noisy background."""
    random = np.random.default_rng(0)
    background = random.integers(60, 160, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
    background = background.repeat(8, axis=0).repeat(8, axis=1)
    with LeRobotDatasetWriter.create("bench/video", FPS, FEATURES, root, vcodec=codec) as writer:
        for episode in range(EPISODES):
            for number in range(LENGTH):
                writer.add_frame(_frame(background, random, episode, number))
            writer.save_episode()


def _frame(
    background: np.ndarray, random: np.random.Generator, episode: int, number: int
) -> dict[str, Any]:
    picture = background.copy()
    top, left = (5 * number) % (SIDE - 20), (7 * number + 11 * episode) % (SIDE - 20)
    picture[top : top + 20, left : left + 20] = (200, 30, 40)
    return {
        CAMERA: picture,
        "observation.state": random.normal(size=8).astype(np.float32),
        "action": random.normal(size=4).astype(np.float32),
        "task": TASKS[episode % len(TASKS)],
    }


def check_agreement(
    mine: dict[str, Any], theirs: dict[str, torch.Tensor], *, jpeg: bool = False
) -> float:
    """Return the mean difference of a pixel (of 255); everything else must be equal."""
    means, tolerance = [0.0], JPEG_TOLERANCE if jpeg else PIXEL_TOLERANCE
    for name, expected in theirs.items():
        if not name.startswith("observation.images."):
            assert torch.equal(mine[name], expected), f"{name!r} differs"
            continue
        error = (mine[name].int() - expected.int()).abs()
        means.append(float(error.float().mean()))
        assert means[-1] <= tolerance[0], f"the pictures differ by {means[-1]} of 255"
        assert int(error.max()) <= tolerance[1], f"a pixel differs by {error.max()} of 255"
    return max(means)


def measure(
    case: str,
    read: Callable[[list[int]], object],
    batches: list[list[int]],
    reference: Reference | None,
    **details: Any,
) -> None:
    """Time the same batches on both sides, a new one every turn."""
    mine, theirs = itertools.cycle(batches), itertools.cycle(batches)
    sides = {OURS: timed(lambda: read(next(mine)))}
    if reference is not None:
        sides[REFERENCE] = lambda: reference.call("batch", indices=next(theirs))["ms"]
    times = take_turns(sides, repeats=len(batches) - 1)
    report(f"dataset batch of {BATCH}, {case}", times, **details)


def measure_codec(
    codec: str, root: Path, reference: Reference | None, batches: list[list[int]]
) -> None:
    windows = {"action": chunk_delta_timestamps(CHUNK, FPS)}
    dataset = LeRobotDataset("bench/video", root, delta_timestamps=windows, return_uint8=True)
    details: dict[str, Any] = {"frames": len(dataset), "camera": f"{SIDE}x{SIDE}"}
    if reference is not None:
        details["reference_versions"] = reference.call(
            "load", root=str(root), delta_timestamps=windows
        )
        reference.call("batch", indices=batches[0], save_as="batch.safetensors")
        expected = load_file(root.parent / "batch.safetensors")
        details["pixel_difference"] = check_agreement(dataset.get_batch(batches[0]), expected)
    measure(codec, dataset.get_batch, batches, reference, **details)
    one_by_one = lambda indices: default_collate([dataset[index] for index in indices])  # noqa: E731
    measure(f"{codec}, item by item", one_by_one, batches, reference, **details)
    cached = LeRobotDataset(
        "bench/video", root, delta_timestamps=windows, return_uint8=True, cache_frames=True
    )
    measure(f"{codec}, ours cache_frames", cached.get_batch, batches, reference, **details)


def measure_loaders(flags: Namespace) -> None:
    """Measure both loaders with cameras and without."""
    os.environ["OMP_NUM_THREADS"] = str(flags.threads)  # of our workers, as of the reference's
    cases = {"video": (dataset_loaders.CAMERAS, 6, 100), "low-dimensional": ((), 20, 500)}
    with tempfile.TemporaryDirectory() as name, ExitStack() as processes:
        reference = None
        if flags.reference_python is not None:
            process = Reference(flags.reference_python, "dataset.py", Path(name), flags.threads)
            reference = processes.enter_context(process)
        for case, (cameras, episodes, length) in cases.items():
            root = Path(name) / case
            dataset_loaders.write_dataset(root, cameras, episodes, length)
            dataset_loaders.measure_loaders(
                case,
                root,
                reference,
                batches=LOADER_BATCHES[case],
                caches=dataset_loaders.CACHES if cameras else ("none",),
                repeats=min(flags.repeats, 5),
                check=check_agreement,
            )


def measure_batches(flags: Namespace) -> None:
    """Measure single batches, by codec."""
    order = np.random.default_rng(1).permutation(EPISODES * LENGTH)
    batches = [order[start : start + BATCH].tolist() for start in range(0, len(order), BATCH)]
    batches = batches[: flags.repeats + 1]  # the first is a warm-up
    for codec in CODECS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_dataset(folder / "dataset", codec)
            if flags.reference_python is None:
                measure_codec(codec, folder / "dataset", None, batches)
                continue
            python, threads = flags.reference_python, flags.threads
            with Reference(python, "dataset.py", folder, threads) as reference:
                measure_codec(codec, folder / "dataset", reference, batches)


def main() -> None:
    parser = make_parser(__doc__, repeats=10)
    parser.add_argument("--question", choices=["batch", "loader", "both"], default="both")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    if flags.question != "loader":
        measure_batches(flags)
    if flags.question != "batch":
        measure_loaders(flags)


if __name__ == "__main__":
    main()
