# SPDX-License-Identifier: Apache-2.0
"""How long is one EO-1 training step, compared with LeRobot's, and how much memory does it take?

From the raw batch to the new weights: preprocessing, forward, backward, clipping and AdamW, with
the same weights, inputs and random draws on both sides. The losses and gradient norms of the first
steps must agree. On a CPU the sides take turns; on a GPU one runs after the other, since two full
networks with their optimisers do not fit.

    python benchmarks/eo1_train_step.py [--shape tiny|middle|full] [--device cpu|cuda]
        [--dtype float32|bfloat16] [--checkpointing no|yes|both] [--reference-python PYTHON]

Prints one JSON line per size of input, with and without gradient checkpointing.
"""

from __future__ import annotations

import dataclasses
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from harness import shapes
from harness.policy_flags import CHECKPOINTING, described, make_training_parser, prepare
from harness.training import Comparison, TrainingSession, print_profile, step_flops
from harness.workload import CHUNK, Case, write_inputs, write_settings

from vlakit.policies.eo1 import EO1Config, EO1Policy
from vlakit.policies.processors import load_processors

CASES = {
    shapes.TINY: (Case(cameras=1, side=84, batch=64), Case(cameras=3, side=224, batch=8)),
    shapes.MIDDLE: (Case(cameras=2, side=256, batch=8),),
    shapes.FULL: (Case(cameras=2, side=256, batch=8),),
}
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}
"""Relative; the third loss follows two updates."""


class Session(TrainingSession):
    """Our side, with the preprocessing that belongs to the step."""

    def __init__(self, checkpoint: Path, config: EO1Config, raw: dict[str, Any]) -> None:
        assert config.device is not None
        policy = EO1Policy(config, device=config.device)
        preprocess, _ = load_processors(checkpoint)
        super().__init__(policy, lambda: preprocess(raw), config.device, config.dtype)
        self.shape = (len(raw["task"]), CHUNK, config.max_action_dim)

    def step(self, seed: int, noise: torch.Tensor | None = None) -> dict[str, Any]:
        noise = torch.randn(self.shape, generator=torch.Generator().manual_seed(seed))
        return super().step(seed, noise)


def measure(case: Case, *, recompute: bool, flags: Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {"shape": flags.shape, "device": flags.device, "dtype": flags.dtype}
        config = write_settings(folder / "checkpoint", case, **settings)
        raw = write_inputs(folder, case)
        config = config.override({"gradient_checkpointing": recompute})
        ours = Session(folder / "checkpoint", config, raw)
        if flags.profile:
            print_profile(ours)
            return
        Comparison(
            case=f"eo1 training step, {case.name}",
            script="eo1.py",
            folder=folder,
            arguments={"gradient_checkpointing": recompute},
            tolerance=TOLERANCE[flags.dtype],
            flops=step_flops(ours),
            details=described(flags) | {"gradient_checkpointing": recompute},
        ).run(ours, flags)


def main() -> None:
    flags = make_training_parser(__doc__, repeats=10).parse_args()
    prepare(flags)
    for case in CASES[flags.shape]:
        if flags.batch is not None:
            case = dataclasses.replace(case, batch=flags.batch)
        for recompute in CHECKPOINTING[flags.checkpointing]:
            measure(case, recompute=recompute, flags=flags)


if __name__ == "__main__":
    main()
