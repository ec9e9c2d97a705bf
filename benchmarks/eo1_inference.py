# SPDX-License-Identifier: Apache-2.0
"""How long does a robot wait for an EO-1 action chunk, compared with LeRobot's policy?

From the raw uint8 observation to actions in the robot's units, 10 denoising steps and two cameras,
with the same weights and noise on both sides; chunks agree.

    python benchmarks/eo1_inference.py [--shape tiny|middle|full] [--device cpu|cuda]
        [--dtype float32|bfloat16] [--reference-python PYTHON] [--threads 1]

Prints one JSON line per batch size, with the median and the slowest twentieth. The first calls are
reported apart (`first_call_ms`): they may prepare the later ones.
"""

from __future__ import annotations

import statistics
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from harness import shapes
from harness.device_rates import copy_bandwidth
from harness.latency import timed_on, warm_up
from harness.policy_flags import COMPILE, described, make_inference_parser, prepare
from harness.reference_process import Reference
from harness.timing import COMPILED, OURS, REFERENCE, Side, report, take_turns
from harness.training import check_weights
from harness.workload import CHUNK, Case, observations, write_inputs, write_settings
from reference.measure import DeviceStopwatch
from reference.named_weights import fill_by_name
from torch import Tensor

from vlakit.policies.eo1 import EO1Config, EO1Policy
from vlakit.policies.processors import load_processors

SIDES = {shapes.TINY: 224, shapes.MIDDLE: 256, shapes.FULL: 256}
ROWS = {shapes.TINY: (1, 16), shapes.MIDDLE: (1,), shapes.FULL: (1,)}
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.1}
"""Largest difference of an action, relative to the largest action."""
SEED = 3


class Session:
    """Our side: a policy with its processors."""

    def __init__(self, checkpoint: Path, config: EO1Config, raw: dict[str, Any]) -> None:
        assert config.device is not None
        watch = DeviceStopwatch(config.device)
        self.raw, self.config = raw, config
        self.policy = EO1Policy(config, device=config.device)
        self.filled = fill_by_name(self.policy)
        self.build_ms = watch.ms
        self._warmup: dict[int, dict[str, Any]] = {}
        self.preprocess, self.postprocess = load_processors(checkpoint)

    def chunk(self, rows: int) -> Tensor:
        shape = (rows, CHUNK, self.config.max_action_dim)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(SEED))
        batch = self.preprocess(observations(self.raw, rows))
        return self.postprocess(self.policy.predict_action_chunk(batch, noise=noise))

    def side(self, rows: int) -> Side:
        return timed_on(str(self.config.device), lambda: self.chunk(rows))

    def warm_up(self, rows: int) -> dict[str, Any]:
        """Return what the first calls took, which are made once."""
        if rows not in self._warmup:
            self._warmup[rows] = warm_up(self.side(rows))
        return self._warmup[rows]

    def step_bytes(self) -> int:
        """Return the bytes of weights that a denoising step reads: the text layers'."""
        layers = self.policy.model.vlm_backbone.model.language_model.layers.parameters()
        return sum(value.numel() * value.element_size() for value in layers)


def check_agreement(ours: Session, reference: Reference, rows: int, tolerance: float) -> float:
    mine = ours.chunk(rows)
    answer = reference.call("chunk", seed=SEED, rows=rows, with_values=True)
    theirs = torch.tensor(answer["chunk"])
    difference = float((mine - theirs).abs().max() / theirs.abs().max())
    assert difference < tolerance, f"the chunks differ by {difference}"
    return difference


def measure(
    ours: Session,
    compiled: Session | None,
    reference: Reference | None,
    rows: int,
    flags: Namespace,
) -> None:
    steps = ours.config.num_denoise_steps
    mine = ours.side(rows)
    details = described(flags) | {"denoise_steps": steps, "build_ms": round(ours.build_ms)}
    details |= ours.warm_up(rows)
    sides = {OURS: mine}
    if compiled is not None:
        sides[COMPILED] = compiled.side(rows)
        details["compiled_first_call_ms"] = compiled.warm_up(rows)["first_call_ms"]
    if reference is not None:
        details["difference"] = check_agreement(ours, reference, rows, TOLERANCE[flags.dtype])
        sides[REFERENCE] = reference.side("chunk", seed=SEED, rows=rows)
    times = take_turns(sides, repeats=flags.repeats, warmup=2)
    bandwidth = copy_bandwidth(flags.device)
    # What reading the text layers' weights once per denoising step takes at least.
    bound_ms = 1e3 * steps * ours.step_bytes() / bandwidth
    details["bound_ms"] = round(bound_ms, 2)
    details["share_of_bound"] = round(bound_ms / statistics.median(times[OURS]), 3)
    details["copy_gb_s"] = round(bandwidth / 1e9, 1)
    case = Case(2, SIDES[flags.shape], rows)
    report(f"eo1 action chunk, {case.name}", times, **details)


def main() -> None:
    flags = make_inference_parser(__doc__, repeats=40).parse_args()
    prepare(flags)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        all_rows = ROWS[flags.shape] if flags.batch is None else (flags.batch,)
        case = Case(cameras=2, side=SIDES[flags.shape], batch=max(all_rows))
        settings = {"shape": flags.shape, "device": flags.device, "dtype": flags.dtype}
        config = write_settings(folder / "checkpoint", case, **settings)
        raw = write_inputs(folder, case)
        ours, compiled = Session(folder / "checkpoint", config, raw), None
        if flags.compile:
            compiled = Session(folder / "checkpoint", config.override(COMPILE), raw)
        if flags.reference_python is None or flags.device == "cuda":
            for rows in all_rows:  # on a GPU also alone: it stays if the reference fails
                measure(ours, compiled, None, rows, flags)
        if flags.reference_python is None:
            return
        with Reference.from_flags(flags, "eo1.py", folder) as reference:
            check_weights(ours.filled, reference.call("load", gradient_checkpointing=False))
            for rows in all_rows:
                measure(ours, compiled, reference, rows, flags)


if __name__ == "__main__":
    main()
