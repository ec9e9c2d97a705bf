# SPDX-License-Identifier: Apache-2.0
"""A tiny untrained EO-1 for Meta-World, as a checkpoint that `vlakit eval` takes."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from vlakit.cli.main import main
from vlakit.features import FeatureType, PolicyFeature
from vlakit.policies.eo1.config import EO1Config
from vlakit.policies.registry import make_policy, make_processors

SIZE = 56
ENV = (
    "--env.type=metaworld",
    f"--env.observation_height={SIZE}",
    f"--env.observation_width={SIZE}",
    "--env.crop=[0.25,0.15,1.0,0.9]",
)


def make_checkpoint(folder: Path) -> Path:
    """Write the checkpoint; returns its folder."""
    torch.manual_seed(0)
    config = EO1Config(
        vlm_base="tiny-qwen2.5-vl",
        device="cpu",
        chunk_size=16,
        n_action_steps=16,
        num_denoise_steps=2,
        input_features={
            "observation.image": PolicyFeature(FeatureType.VISUAL, (3, SIZE, SIZE)),
            "observation.state": PolicyFeature(FeatureType.STATE, (4,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (4,))},
    )
    policy = make_policy(config)
    policy.save_pretrained(folder)
    stats = {
        name: {"mean": [0.0] * 4, "std": [0.5] * 4} for name in ("observation.state", "action")
    }
    for pipeline in make_processors(policy.config, stats):
        pipeline.save(folder)
    return folder


def arguments(checkpoint: Path, output_dir: Path, *flags: str) -> list[str]:
    """Return the command line of an evaluation."""
    return ["eval", f"--policy.path={checkpoint}", *ENV, f"--output_dir={output_dir}", *flags]


def evaluate(checkpoint: Path, output_dir: Path, *flags: str) -> dict:
    """Run an evaluation in this process; returns its `eval_info.json`."""
    assert main(arguments(checkpoint, output_dir, *flags)) == 0
    return json.loads((output_dir / "eval_info.json").read_text())
