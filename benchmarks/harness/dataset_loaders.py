# SPDX-License-Identifier: Apache-2.0
"""Samples per second through each side's own loader, as its training command makes it.

Every turn starts a loader, waits for its first batch, and measures those after it; workers of the
other side are gone by then.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from harness.reference_process import Reference
from harness.timing import OURS, REFERENCE, Side, report, take_turns
from harness.workload import TASKS
from safetensors.torch import load_file

from vlakit.datasets import LeRobotDataset, LeRobotDatasetWriter
from vlakit.datasets.action_window import chunk_delta_timestamps
from vlakit.datasets.config import DatasetConfig, FrameCacheKind
from vlakit.policies.eo1 import EO1Config
from vlakit.training.batches import BatchReader, NumberedBatches, loaded_batches
from vlakit.training.config import TrainFlags

CAMERAS = ("observation.images.front", "observation.images.wrist")
SIDE, FPS, CHUNK, BATCH = 256, 20, 10, 8
VECTORS = {
    "observation.state": {"dtype": "float32", "shape": (8,), "names": None},
    "action": {"dtype": "float32", "shape": (7,), "names": None},
}
CACHES: tuple[FrameCacheKind, ...] = ("none", "raw", "jpeg")

Check = Callable[..., float]
"""Ours, the reference's, and `jpeg=`, whether ours went through JPEG -> mean difference of a
pixel."""


def write_dataset(root: Path, cameras: tuple[str, ...], episodes: int, length: int) -> None:
    """Write squares that move over a still, noisy background; no cameras, no pictures."""
    random = np.random.default_rng(0)
    background = random.integers(60, 160, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
    background = background.repeat(8, axis=0).repeat(8, axis=1)
    pictures = {name: {"dtype": "video", "shape": (SIDE, SIDE, 3),
                       "names": ["height", "width", "channels"]} for name in cameras}  # fmt: skip
    with LeRobotDatasetWriter.create("bench/loader", FPS, pictures | VECTORS, root) as writer:
        for episode in range(episodes):
            for number in range(length):
                frame: dict[str, Any] = {"task": TASKS[episode % len(TASKS)]}
                for place, name in enumerate(cameras):
                    frame[name] = background.copy()
                    top = (5 * number) % (SIDE - 40)
                    left = (7 * number + 11 * episode + 50 * place) % (SIDE - 40)
                    frame[name][top : top + 40, left : left + 40] = (200, 30, 40)
                for name, entry in VECTORS.items():
                    frame[name] = random.normal(size=entry["shape"]).astype(np.float32)
                writer.add_frame(frame)
            writer.save_episode()


class Loader:
    """Our loader over one dataset."""

    def __init__(self, root: Path, kind: FrameCacheKind, order: list[list[int]]) -> None:
        self.order = order
        settings = DatasetConfig(repo_id="bench/loader", root=str(root))
        self.flags = TrainFlags(
            dataset=settings,
            policy=EO1Config(push_to_hub=False, device="cpu"),
            steps=len(order),
            batch_size=BATCH,
        )
        dataset = LeRobotDataset(
            "bench/loader",
            root,
            delta_timestamps={"action": chunk_delta_timestamps(CHUNK, FPS)},
            return_uint8=True,
            frame_cache=kind,
            frame_cache_dir=root.parent / "frame_cache",
        )
        self.reader = BatchReader(dataset, settings.image_transforms, seed=0)

    def first(self) -> dict[str, Any]:
        return next(self._batches(0))

    def _batches(self, num_workers: int) -> Any:
        flags = type(self.flags)(**(vars(self.flags) | {"num_workers": num_workers}))
        return loaded_batches(self.reader, NumberedBatches(self.order, 0, flags.steps), flags)

    def side(self, num_workers: int) -> Side:
        """Return a side: milliseconds a batch, those of the first left out."""

        def measure() -> float:
            batches = self._batches(num_workers)
            next(batches)
            start = time.perf_counter()
            for _ in batches:
                elapsed = time.perf_counter() - start  # and not the time that workers take to end
            return 1e3 * elapsed / (len(self.order) - 1)

        return measure


def order_of(num_frames: int, batches: int) -> list[list[int]]:
    """Return random batches, over and over again where there are more than the dataset holds."""
    random, order = np.random.default_rng(1), []
    while len(order) < batches:
        frames = random.permutation(num_frames)
        order += [frames[at : at + BATCH].tolist() for at in range(0, num_frames - BATCH, BATCH)]
    return order[:batches]


def measure_loaders(
    case: str,
    root: Path,
    reference: Reference | None,
    *,
    batches: Mapping[str, int],
    caches: tuple[FrameCacheKind, ...],
    repeats: int,
    check: Check,
) -> None:
    """Print one line per way of reading and number of workers."""
    num_frames = len(LeRobotDataset("bench/loader", root))
    orders = {side: order_of(num_frames, count) for side, count in batches.items()}
    loaders = {kind: Loader(root, kind, orders[OURS]) for kind in caches}
    details: dict[str, Any] = {"batch": BATCH, "action_chunk": CHUNK, "frames": num_frames}
    differences: dict[str, float] = {}
    if reference is not None:
        windows = {"action": chunk_delta_timestamps(CHUNK, FPS)}
        details["reference_versions"] = reference.call(
            "load", root=str(root), delta_timestamps=windows, repo_id="bench/loader"
        )
        assert orders[OURS][0] == orders[REFERENCE][0]
        reference.call("batch", indices=orders[REFERENCE][0], save_as="batch.safetensors")
        expected = load_file(root.parent / "batch.safetensors")
        differences = {kind: check(loader.first(), expected, jpeg=kind == "jpeg")
                       for kind, loader in loaders.items()}  # fmt: skip
    for num_workers in (0, 2):
        sides: dict[str, Side] = {kind: loaders[kind].side(num_workers) for kind in caches}
        if reference is not None:
            sides[REFERENCE] = reference.side(
                "loader", batches=orders[REFERENCE], num_workers=num_workers
            )
        times = take_turns(sides, repeats=repeats, warmup=0 if num_workers else 1)
        for kind in caches:
            _report(case, kind, num_workers, times, details, differences)


def _report(
    case: str,
    kind: str,
    num_workers: int,
    times: Mapping[str, list[float]],
    details: dict[str, Any],
    differences: Mapping[str, float],
) -> None:
    name = f"loader, {case}, {num_workers} workers" + (f", {kind} cache" if kind != "none" else "")
    both = {OURS: times[kind]}
    if REFERENCE in times:
        both[REFERENCE] = times[REFERENCE]
        details["pixel_difference"] = differences[kind]
    rates = {f"{side}_samples_per_s": round(1e3 * BATCH / statistics.median(values), 1)
             for side, values in both.items()}  # fmt: skip
    rounded = {key: round(value, 1) if isinstance(value, float) else value
               for key, value in details.items()}  # fmt: skip
    report(name, both, **(rates | rounded))
