# SPDX-License-Identifier: Apache-2.0
"""How long does it take to turn camera images into Qwen2.5-VL's patches, and a batch into inputs?

Compares `qwen_patches` with transformers' Pillow-based processor for Qwen2-VL (what LeRobot runs by
default) in one process on one thread, over a batch of 64 uint8 images; both must give the same
numbers to the bit. `preprocessor_ms` is the whole EO-1 preprocessor of a new policy.

    python benchmarks/image_preprocessing.py [--threads 1]

Prints one JSON line per case. The reference runs in this process: transformers is a dependency
of the tests.
"""

from __future__ import annotations

import torch
import transformers
from harness.timing import OURS, REFERENCE, make_parser, report, take_turns, timed
from harness.workload import PRESET, STATE
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vlakit.policies.eo1.config import EO1Config
from vlakit.policies.eo1.processor import make_processors
from vlakit.processing.images import PatchSettings, qwen_patches

BATCH = 64
CASES = {
    "84x84, fits": (84, 84 * 84, 84 * 84),
    "256x256, resized to 252x252": (256, 50176, 100352),
}
CAMERA = "observation.images.top"


def compare(side: int, min_pixels: int, max_pixels: int, repeats: int) -> dict[str, list[float]]:
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
    ours = timed(lambda: qwen_patches(images, settings))
    return take_turns({OURS: ours, REFERENCE: timed(run_reference)}, repeats=repeats)


def whole_preprocessor(
    side: int, min_pixels: int, max_pixels: int, repeats: int
) -> dict[str, list[float]]:
    config = EO1Config.from_json(
        {
            "vlm_base": PRESET,
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
    return take_turns({"preprocessor": timed(lambda: preprocess(raw))}, repeats=repeats)


def main() -> None:
    flags = make_parser(__doc__, repeats=15, other_process=False).parse_args()
    torch.set_num_threads(flags.threads)
    for name, case in CASES.items():
        times = compare(*case, flags.repeats) | whole_preprocessor(*case, flags.repeats)
        versions = {"transformers": transformers.__version__}
        report(f"64 images {name}", times, reference_versions=versions)


if __name__ == "__main__":
    main()
