# SPDX-License-Identifier: Apache-2.0
"""How long is one pi0-FAST training step, compared with LeRobot's, and how much memory?

From the preprocessed batch (two cameras, an empty one, prompts of 40 tokens in 200, 40 action
tokens in 256) to the new weights: forward, backward, clipping and AdamW, with the same weights and
inputs on both sides. The losses and gradient norms of the first steps must agree. On a CPU the
sides take turns; on a GPU one runs after the other, since two full networks with their optimisers
do not fit.

    python benchmarks/pi0_fast_train_step.py [--shape tiny|middle|full] [--device cpu|cuda]
        [--dtype float32|bfloat16] [--checkpointing no|yes|both] [--reference-python PYTHON]

Prints one JSON line per choice of gradient checkpointing.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from pathlib import Path

from harness.pi0_fast_workload import lerobot_sizes, write_batch, write_settings
from harness.policy_flags import CHECKPOINTING, described, make_training_parser, prepare
from harness.training import Comparison, TrainingSession, print_profile, step_flops

from vlakit.policies.pi0_fast import PI0FastPolicy

BATCH = 4
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}
"""Relative; the third loss follows two updates."""


def measure(flags: Namespace, *, recompute: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_settings(folder, shape=flags.shape, device=flags.device, dtype=flags.dtype)
        config = config.override({"gradient_checkpointing": recompute})
        batch = write_batch(folder, shape=flags.shape, rows=flags.batch)
        batch = {key: value.to(flags.device) for key, value in batch.items()}
        policy = PI0FastPolicy(config, device=flags.device)
        ours = TrainingSession(policy, lambda: batch, flags.device, flags.dtype)
        del policy
        if flags.profile:
            print_profile(ours)
            return
        Comparison(
            case=f"pi0-FAST training step, 2 cameras and an empty one, batch {flags.batch}",
            script="pi0_fast.py",
            folder=folder,
            arguments={"sizes": lerobot_sizes(flags.shape), "gradient_checkpointing": recompute},
            tolerance=TOLERANCE[flags.dtype],
            flops=step_flops(ours),
            details=described(flags) | {"gradient_checkpointing": recompute},
        ).run(ours, flags)


def main() -> None:
    parser = make_training_parser(__doc__, repeats=10)
    parser.set_defaults(batch=BATCH)
    flags = parser.parse_args()
    prepare(flags)
    for recompute in CHECKPOINTING[flags.checkpointing]:
        measure(flags, recompute=recompute)


if __name__ == "__main__":
    main()
