# SPDX-License-Identifier: Apache-2.0
"""How long does it take to turn camera images into Qwen2.5-VL's patches, and a batch into inputs?

Compares `qwen_patches` with transformers' Pillow-based processor for Qwen2-VL (what LeRobot runs by
default) in one process on one thread, over a batch of 64 uint8 images; both must give the same
numbers to the bit. The last lines time the whole EO-1 preprocessor of a new policy.

    python benchmarks/image_preprocessing.py

Prints one JSON line per case: milliseconds are medians of `REPEATS` calls after a warm-up, the two
sides taking turns.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import transformers
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vlakit.policies.eo1.config import EO1Config
from vlakit.policies.eo1.processor import make_processors
from vlakit.processing.images import PatchSettings, qwen_patches

BATCH = 64
REPEATS = 15
CASES = {
    "84x84, fits": (84, 84 * 84, 84 * 84),
    "256x256, resized to 252x252": (256, 50176, 100352),
}
CAMERA, STATE = "observation.images.top", "observation.state"


def median_ms(*calls: Callable[[], Any]) -> list[float]:
    """Return the median of each call; they take turns, so that a busy machine slows all alike."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(REPEATS + 1):
        for call, record in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            record.append(time.perf_counter() - start)
    return [statistics.median(record[1:]) * 1e3 for record in times]


def compare(side: int, min_pixels: int, max_pixels: int) -> dict[str, float]:
    images = torch.randint(0, 256, (BATCH, 3, side, side), dtype=torch.uint8)
    settings = PatchSettings(min_pixels=min_pixels, max_pixels=max_pixels)
    reference = Qwen2VLImageProcessorPil(
        size={"shortest_edge": min_pixels, "longest_edge": max_pixels}
    )
    arrays = [image.numpy() for image in images]

    def run_reference() -> torch.Tensor:
        done = reference(images=arrays, return_tensors="pt", input_data_format="channels_first")
        return done["pixel_values"]

    assert torch.equal(qwen_patches(images, settings).flatten(0, 1), run_reference())
    ours, theirs = median_ms(lambda: qwen_patches(images, settings), run_reference)
    return {"vlakit_ms": ours, "reference_ms": theirs, "times_faster": theirs / ours}


def whole_preprocessor_ms(side: int, min_pixels: int, max_pixels: int) -> float:
    config = EO1Config.from_json(
        {
            "vlm_base": "tiny-qwen2.5-vl",
            "device": "cpu",
            "image_min_pixels": min_pixels,
            "image_max_pixels": max_pixels,
            "input_features": {
                CAMERA: {"type": "VISUAL", "shape": [3, side, side]},
                STATE: {"type": "STATE", "shape": [4]},
            },
            "output_features": {"action": {"type": "ACTION", "shape": [4]}},
        }
    )
    stats = {name: {"mean": [0.0] * 4, "std": [1.0] * 4} for name in (STATE, "action")}
    preprocess, _ = make_processors(config, stats)
    raw = {
        CAMERA: torch.randint(0, 256, (BATCH, 3, side, side), dtype=torch.uint8),
        STATE: torch.randn(BATCH, 4),
        "action": torch.randn(BATCH, 8, 4),
        "task": ["open the drawer", "close the drawer"] * (BATCH // 2),
    }
    return median_ms(lambda: preprocess(raw))[0]


def circumstances() -> dict[str, str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def main() -> None:
    torch.set_num_threads(1)
    for name, case in CASES.items():
        times = compare(*case) | {"whole_preprocessor_ms": whole_preprocessor_ms(*case)}
        rounded = {key: round(value, 2) for key, value in times.items()}
        print(json.dumps({"case": name, "batch": BATCH} | rounded | circumstances()))


if __name__ == "__main__":
    main()
