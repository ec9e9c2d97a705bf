# SPDX-License-Identifier: Apache-2.0
"""How long does a robot wait for an EO-1 action chunk, compared with LeRobot's policy?

From the raw uint8 observation to actions in the robot's units, 10 denoising steps, with the preset
`tiny-qwen2.5-vl` and two cameras of 224x224. Same weights and noise on both sides; chunks agree.

    python benchmarks/eo1_inference.py [--reference-python PYTHON] [--threads 1]

Prints one JSON line per batch size, with the median and the slowest twentieth.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from harness.reference_process import Reference
from harness.timing import OURS, REFERENCE, make_parser, report, take_turns, timed
from harness.workload import Case, observations, write_checkpoint, write_inputs
from torch import Tensor

from vlakit.policies.eo1 import EO1Policy
from vlakit.policies.processors import load_processors

CASE = Case(cameras=2, side=224, batch=16)
ROWS = (1, 16)
TOLERANCE = 1e-5
"""Largest difference of an action, relative to the largest action."""


class Session:
    """Our side: a policy with its processors."""

    def __init__(self, checkpoint: Path, raw: dict[str, Any]) -> None:
        self.raw = raw
        self.policy = EO1Policy.from_pretrained(checkpoint)
        self.preprocess, self.postprocess = load_processors(checkpoint)

    def chunk(self, seed: int, rows: int) -> Tensor:
        torch.manual_seed(seed)
        batch = self.preprocess(observations(self.raw, rows))
        return self.postprocess(self.policy.predict_action_chunk(batch))


def check_agreement(ours: Session, reference: Reference, rows: int) -> float:
    mine = ours.chunk(3, rows)
    theirs = torch.tensor(reference.call("chunk", seed=3, rows=rows, with_values=True)["chunk"])
    difference = float((mine - theirs).abs().max() / theirs.abs().max())
    assert difference < TOLERANCE, f"the chunks differ by {difference}"
    return difference


def measure(ours: Session, reference: Reference | None, rows: int, repeats: int) -> None:
    details: dict[str, Any] = {"denoise_steps": ours.policy.config.num_denoise_steps}
    sides = {OURS: timed(lambda: ours.chunk(3, rows))}
    if reference is not None:
        loaded = reference.call("load", gradient_checkpointing=False)
        details |= {"reference_versions": loaded}
        details |= {"difference": check_agreement(ours, reference, rows)}
        sides[REFERENCE] = reference.side("chunk", seed=3, rows=rows)
    times = take_turns(sides, repeats=repeats, warmup=2)
    case = Case(CASE.cameras, CASE.side, rows)
    report(f"eo1 action chunk, {case.name}", times, **details)


def main() -> None:
    flags = make_parser(__doc__, repeats=40).parse_args()
    torch.set_num_threads(flags.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder / "checkpoint", CASE)
        ours = Session(folder / "checkpoint", write_inputs(folder, CASE))
        for rows in ROWS:
            if flags.reference_python is None:
                measure(ours, None, rows, flags.repeats)
                continue
            with Reference(flags.reference_python, "eo1.py", folder, flags.threads) as reference:
                measure(ours, reference, rows, flags.repeats)


if __name__ == "__main__":
    main()
