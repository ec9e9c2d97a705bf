# SPDX-License-Identifier: Apache-2.0
"""How long is one EO-1 training step, compared with LeRobot's?

From the raw batch to the new weights: preprocessing, forward, backward, clipping and AdamW, with
the preset `tiny-qwen2.5-vl`, the same weights, inputs and random draws on both sides. The losses
and gradient norms of the first steps must agree.

    python benchmarks/eo1_train_step.py [--reference-python PYTHON] [--threads 1] [--profile]

Prints one JSON line per size of input, with and without gradient checkpointing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from harness.reference_process import Reference
from harness.timing import OURS, REFERENCE, make_parser, report, take_turns, timed
from harness.workload import Case, write_checkpoint, write_inputs

from vlakit.policies.eo1 import EO1Policy
from vlakit.policies.processors import load_processors
from vlakit.training.optimizer import make_optimizer
from vlakit.training.optimizer_config import preset_optimizer
from vlakit.training.step import StepResult, autocast, train_step

CASES = (Case(cameras=1, side=84, batch=64), Case(cameras=3, side=224, batch=8))
CHECKED_STEPS = 3
TOLERANCE = 1e-4
"""Relative; the third loss follows two updates."""


class Session:
    """Our side: a policy with its preprocessor and optimiser."""

    def __init__(self, checkpoint: Path, raw: dict[str, Any], *, recompute: bool) -> None:
        self.raw = raw
        self.policy = EO1Policy.from_pretrained(checkpoint, gradient_checkpointing=recompute)
        self.preprocess, _ = load_processors(checkpoint)
        preset = preset_optimizer(self.policy.config)
        self.clip = preset.grad_clip_norm
        self.optimizer = make_optimizer(preset, self.policy.parameters())
        self.scheduler = torch.optim.lr_scheduler.ConstantLR(self.optimizer, factor=1.0)

    def step(self, seed: int) -> StepResult:
        torch.manual_seed(seed)
        self.policy.train()
        return train_step(
            self.policy,
            self.preprocess(self.raw),
            self.optimizer,
            self.scheduler,
            grad_clip_norm=self.clip,
            precision=autocast(torch.device("cpu"), "float32"),
        )


def check_agreement(ours: Session, reference: Reference) -> float:
    """Return the largest relative difference of losses and norms over the first steps."""
    worst = 0.0
    for seed in range(CHECKED_STEPS):
        mine, theirs = ours.step(seed), reference.call("step", seed=seed)
        for value, expected in ((mine.loss, theirs["loss"]), (mine.grad_norm, theirs["norm"])):
            worst = max(worst, abs(float(value) - expected) / expected)
    assert worst < TOLERANCE, f"the sides differ by {worst}: this compares different work"
    return worst


def measure(case: Case, *, recompute: bool, flags: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder / "checkpoint", case)
        ours = Session(folder / "checkpoint", write_inputs(folder, case), recompute=recompute)
        details: dict[str, Any] = {"gradient_checkpointing": recompute}
        sides = {OURS: timed(lambda: ours.step(9))}
        if flags.reference_python is None:
            times = take_turns(sides, repeats=flags.repeats)
        else:
            with Reference(flags.reference_python, "eo1.py", folder, flags.threads) as reference:
                loaded = reference.call("load", gradient_checkpointing=recompute)
                details |= {
                    "difference": check_agreement(ours, reference),
                    "reference_versions": loaded,
                }
                sides[REFERENCE] = reference.side("step", seed=9)
                times = take_turns(sides, repeats=flags.repeats)
        report(f"eo1 training step, {case.name}", times, **details)
        if flags.profile:
            _print_profile(ours)


def _print_profile(ours: Session) -> None:
    with torch.profiler.profile() as profile:
        ours.step(9)
    print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=30))


def main() -> None:
    parser = make_parser(__doc__, repeats=10)
    parser.add_argument("--profile", action="store_true", help="print where our side spends time")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    for case in CASES:
        for recompute in (False, True):
            measure(case, recompute=recompute, flags=flags)


if __name__ == "__main__":
    main()
