# SPDX-License-Identifier: Apache-2.0
"""`vlakit train` as a user types it, on a dataset of three short episodes and a tiny backbone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.fixtures_root import FIXTURE_ROOT
from vlakit.cli.main import main

DATASET = FIXTURE_ROOT / "dataset" / "v3.0"
DATA = [f"--dataset.repo_id=local/three", f"--dataset.root={DATASET}"]  # noqa: F541
POLICY = [
    "--policy.type=eo1",
    "--policy.vlm_base=tiny-qwen2.5-vl",
    "--policy.image_min_pixels=3136",
    "--policy.image_max_pixels=6272",
    "--policy.chunk_size=4",
    "--policy.n_action_steps=4",
]
RUN = [
    "--policy.device=cpu",
    "--policy.push_to_hub=false",
    "--batch_size=2",
    "--num_workers=0",
    "--log_freq=1",
]


def train(output_dir: Path, *arguments: str, policy: list[str] | None = None) -> int:
    """Run the command in this process; returns its exit code. Later arguments win."""
    given = [*DATA, *(POLICY if policy is None else policy), *RUN, f"--output_dir={output_dir}"]
    return main(["train", *given, *arguments])


def resume(checkpoint: Path, *arguments: str) -> int:
    """Go on from a checkpoint; returns the exit code."""
    return main(["train", "--resume=true", f"--config_path={checkpoint}", *arguments])


def log_of(output_dir: Path) -> list[dict[str, Any]]:
    """Return the entries of the run's log."""
    lines = (output_dir / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def numbers(output_dir: Path) -> list[tuple[int, float, float, float]]:
    """Return (step, loss, gradient norm, learning rate) of every logged step."""
    return [
        (entry["step"], entry["loss"], entry["grad_norm"], entry["lr"])
        for entry in log_of(output_dir)
        if "loss" in entry
    ]
