# SPDX-License-Identifier: Apache-2.0
"""How long does an EO-1 checkpoint take to load, and how much memory, compared with LeRobot?

A bfloat16 policy of 0.4 GB with random weights, shaped like Qwen2.5-VL, from the page cache. Every
load is a new process; imports are not counted. The sums of all weights must agree.

    python benchmarks/checkpoint_loading.py [--reference-python PYTHON] [--threads 1]

Prints one JSON line. `peak_above_imports_mb` holds the mapped file where a side maps it.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from harness.reference_process import environment
from harness.timing import OURS, REFERENCE, make_parser, report, take_turns

from vlakit.checkpoints.pretrained import read_config
from vlakit.features import FeatureType, PolicyFeature
from vlakit.hub import resolve
from vlakit.policies.eo1 import EO1Config, EO1Policy

SCRIPT = Path(__file__).parent / "harness" / "load_checkpoint.py"
TEXT = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_attention_heads": 16,
    "num_hidden_layers": 14,
    "num_key_value_heads": 2,
    "vocab_size": 32000,
    "layer_types": ["full_attention"] * 14,
    "rope_parameters": {
        "mrope_section": [8, 12, 12],
        "rope_theta": 1e6,
        "rope_type": "default",
    },
}
VISION = {
    "depth": 8,
    "hidden_size": 640,
    "intermediate_size": 1728,
    "num_heads": 10,
    "out_hidden_size": 1024,
}


def write_checkpoint(folder: Path) -> None:
    """Write a policy with random weights."""
    preset = read_config(resolve("tiny-qwen2.5-vl"))
    vlm_config = preset | {
        "dtype": "bfloat16",
        "text_config": preset["text_config"] | TEXT,
        "vision_config": preset["vision_config"] | VISION,
    }
    config = EO1Config(
        vlm_base=str(resolve("tiny-qwen2.5-vl")),
        vlm_config=vlm_config,
        device="cpu",
        input_features={
            "observation.images.cam": PolicyFeature(FeatureType.VISUAL, (3, 224, 224)),
            "observation.state": PolicyFeature(FeatureType.STATE, (8,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (7,))},
    )
    torch.manual_seed(0)
    EO1Policy(config).save_pretrained(folder)


class Loader:
    """Loads the checkpoint in a new process per turn and keeps what was printed."""

    def __init__(self, python: str, side: str, folder: Path, threads: int) -> None:
        self.command = [python, str(SCRIPT), side, str(folder)]
        # Ours is found the way this process finds it, the reference without our path.
        paths = {"PYTHONPATH": ":".join(sys.path)} if side == "vlakit" else {}
        self.environment = environment(threads) | paths
        self.answers: list[dict[str, Any]] = []

    def __call__(self) -> float:
        done = subprocess.run(
            self.command, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{' '.join(self.command)} failed:\n{done.stderr[-3000:]}")
        self.answers.append(json.loads(done.stdout.splitlines()[-1]))
        return self.answers[-1]["ms"]

    def median(self, key: str) -> float:
        return round(statistics.median(answer[key] for answer in self.answers), 1)


def main() -> None:
    flags = make_parser(__doc__, repeats=3).parse_args()
    torch.set_num_threads(flags.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "checkpoint"
        write_checkpoint(folder)
        loaders = {OURS: Loader(sys.executable, "vlakit", folder, flags.threads)}
        if flags.reference_python is not None:
            loaders[REFERENCE] = Loader(flags.reference_python, "lerobot", folder, flags.threads)
        times = take_turns(loaders, repeats=flags.repeats)
        answers = [loader.answers[0] for loader in loaders.values()]
        for answer in answers:
            assert answer["parameters"] == answers[0]["parameters"]
            assert math.isclose(answer["sum"], answers[0]["sum"], rel_tol=1e-9)
        details = {
            f"{side}_{key}": loader.median(key)
            for side, loader in loaders.items()
            for key in ("peak_mb", "peak_above_imports_mb")
        }
        weights = {key: answers[0][key] for key in ("parameters", "weights_mb")}
        report("load a bfloat16 checkpoint", times, **weights, **details)


if __name__ == "__main__":
    main()
