# SPDX-License-Identifier: Apache-2.0
"""Training steps of two sides: their losses agree, then their time and their memory."""

from __future__ import annotations

import gc
import math
import statistics
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from harness.device_rates import matrix_rate
from harness.reference_process import Reference
from harness.timing import OURS, REFERENCE, report, take_turns
from reference.measure import DeviceStopwatch, PeakMemory, optimizer_mb, used_mb
from reference.named_weights import fill_by_name
from torch import Tensor

from vlakit.policies.base import Policy
from vlakit.training.optimizer import has_fused_update, make_optimizer
from vlakit.training.optimizer_config import preset_optimizer
from vlakit.training.profile_flops import forward_flops
from vlakit.training.step import autocast, train_step

Step = Callable[[int], dict[str, Any]]
"""Takes a seed, does one step, returns `ms`, `loss`, `norm` and the three sizes in MB."""

CHECKED_STEPS = 3
_WARMUP = 1


class Batches(Protocol):
    """Gives our side the batch of a step; its time belongs to the step."""

    def __call__(self) -> dict[str, Any]: ...


class TrainingSession:
    """Our side: a policy with its optimiser, as `vlakit train` puts them together."""

    def __init__(self, policy: Policy, batches: Batches, device: str, dtype: str) -> None:
        """Take a policy and fill its weights.

        Args:
            policy: built on the device.
            batches: gives the batch of a step.
            device: cpu or cuda.
            dtype: the policy's.
        """
        self.policy, self.batches = policy, batches
        self.filled = fill_by_name(policy)
        self.device, self.dtype = device, dtype
        preset = preset_optimizer(policy.config)
        self.clip = preset.grad_clip_norm
        fused = has_fused_update(torch.device(device))
        self.optimizer = make_optimizer(preset, policy.parameters(), fused=fused)
        self.scheduler = torch.optim.lr_scheduler.ConstantLR(self.optimizer, factor=1.0)
        self.weights_mb = used_mb(device)
        self._noise: Tensor | None = None

    def parameters(self) -> Any:
        return self.policy.parameters()

    def leave(self) -> None:
        """Give the device back."""
        del self.policy, self.optimizer, self.scheduler
        gc.collect()
        torch.cuda.empty_cache()

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Give the policy the noise of this step, the same on every kind of device."""
        return self.policy.forward(batch, noise=self._noise)

    def step(self, seed: int, noise: Tensor | None = None) -> dict[str, Any]:
        torch.manual_seed(seed)
        self._noise = noise
        peak, watch = PeakMemory(self.device), DeviceStopwatch(self.device)
        self.policy.train()
        result = train_step(
            self,
            self.batches(),
            self.optimizer,
            self.scheduler,
            grad_clip_norm=self.clip,
            precision=autocast(torch.device(self.device), self.dtype),
        )
        return {
            "ms": watch.ms,
            "loss": float(result.loss),
            "norm": float(result.grad_norm),
            "peak_mb": peak.mb,
            "weights_mb": self.weights_mb,
            "optimizer_mb": optimizer_mb(self.optimizer),
        }


class Recorded:
    """A side whose answers are kept: the first ones are compared, the last ones measured."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self.checked: list[dict[str, Any]] = []
        self.last: dict[str, Any] = {}

    def check(self, steps: int) -> None:
        """Do the steps whose losses are compared."""
        self.checked = [self._step(seed) for seed in range(steps)]

    def side(self) -> float:
        self.last = self._step(9)
        return self.last["ms"]


def check_weights(ours: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
    """Stop when the two networks are not the same one; names and numbers decide."""
    same = ours["parameters"] == reference["parameters"] and math.isclose(
        ours["sum"], reference["sum"], rel_tol=1e-6
    )
    assert same, f"the networks differ: {dict(ours)} and {dict(reference)}"


def differences(ours: Recorded, reference: Recorded, tolerance: float, dtype: str) -> list[float]:
    """Return the largest relative difference of losses and norms at each of the checked steps.

    In bfloat16 updates are as coarse as the weights, so there the first step alone decides.

    Raises:
        AssertionError: the sides do different work.
    """
    worst = [
        max(abs(mine[name] - theirs[name]) / abs(theirs[name]) for name in ("loss", "norm"))
        for mine, theirs in zip(ours.checked, reference.checked, strict=True)
    ]
    deciding = worst[:1] if dtype == "bfloat16" else worst
    assert max(deciding) < tolerance, f"the sides differ by {worst}: this compares different work"
    return worst


@dataclass
class Comparison:
    """One case of training steps: what to compare, and what to print with it."""

    case: str
    script: str
    """Of the reference, in `reference/`."""
    folder: Path
    """That it reads."""
    arguments: dict[str, Any]
    """Of the script's `load`."""
    tolerance: float
    """Relative, of losses and gradient norms."""
    flops: float
    """Of a step, see `step_flops`."""
    details: dict[str, Any]

    def run(self, ours: TrainingSession, flags: Namespace) -> None:
        """Check that both sides do the same work, then measure their steps and print a line.

        On a CPU they take turns. On a GPU ours goes first and leaves the card, since two full
        networks with their optimisers do not fit on one. Its line is then printed twice, alone and
        compared: if the reference fails, the first one stays.
        """
        rate = matrix_rate(flags.device, getattr(torch, flags.dtype))
        sides = {OURS: Recorded(ours.step)}
        self.details["parameters"] = ours.filled["parameters"]
        one_by_one, times = flags.device == "cuda", {}
        sides[OURS].check(CHECKED_STEPS)
        if one_by_one or flags.reference_python is None:
            times = take_turns({OURS: sides[OURS].side}, repeats=flags.repeats, warmup=_WARMUP)
            self._report(sides, times, rate)
        if flags.reference_python is None:
            return
        if one_by_one:
            ours.leave()
        with Reference.from_flags(flags, self.script, self.folder) as reference:
            loaded = reference.call("load", **self.arguments)
            check_weights(ours.filled, loaded)
            sides[REFERENCE] = Recorded(lambda seed: reference.call("step", seed=seed))
            sides[REFERENCE].check(CHECKED_STEPS)
            difference = differences(sides[OURS], sides[REFERENCE], self.tolerance, flags.dtype)
            turns = {name: side.side for name, side in sides.items() if name not in times}
            times |= take_turns(turns, repeats=flags.repeats, warmup=_WARMUP)
        self.details |= {"difference": difference, "reference_versions": loaded}
        self.details["sides"] = "one after the other" if one_by_one else "in turn"
        self._report(sides, times, rate)

    def _report(
        self, sides: Mapping[str, Recorded], times: dict[str, list[float]], rate: float
    ) -> None:
        details = self.details | memory(sides) | achieved(self.flops, times, rate)
        report(self.case, times, **details)


def memory(sides: Mapping[str, Recorded]) -> dict[str, Any]:
    """Return the most memory of a step in MB, of each side and as a ratio.

    Beyond the weights are gradients, activations and the optimiser's state; beyond the state, which
    no side can do without, are gradients and activations.
    """
    found: dict[str, Any] = {}
    for name, side in sides.items():
        if side.last.get("peak_mb") is None:
            continue
        beyond = side.last["peak_mb"] - side.last["weights_mb"]
        # At the first step the state is made at the end, when the activations are gone.
        first = side.checked[0] if side.checked else side.last
        found[f"{name}_beyond_weights_mb"] = round(beyond)
        found[f"{name}_beyond_state_mb"] = round(beyond - side.last["optimizer_mb"])
        found[f"{name}_first_step_mb"] = round(first["peak_mb"] - first["weights_mb"])
    for what in ("beyond_weights", "beyond_state"):
        mine, theirs = (found.get(f"{name}_{what}_mb") for name in (OURS, REFERENCE))
        if mine is not None and theirs:
            found[f"{what}_ours_over_reference"] = round(mine / theirs, 3)
    return found


def achieved(flops: float, times: Mapping[str, list[float]], rate: float) -> dict[str, Any]:
    """Return the share of the device's measured matrix rate that a step reaches (MFU).

    Args:
        flops: of the network's own work in one step, recomputation not counted.
        times: milliseconds of steps by side.
        rate: FLOPs per second of a large matrix product.
    """
    shares = {
        f"{name}_mfu": round(flops / (statistics.median(values) / 1e3) / rate, 4)
        for name, values in times.items()
    }
    return {"step_tflop": round(flops / 1e12, 4), "matrix_tflops": round(rate / 1e12, 2)} | shares


def step_flops(ours: TrainingSession) -> float:
    """Return the FLOPs of one training step: three times those of our forward pass.

    Ours has no work on padding, so this is what the task takes, the same number for both sides.
    """
    ours.policy.train()
    precision = partial(autocast, torch.device(ours.device), ours.dtype)
    return 3.0 * forward_flops(ours.policy, ours.batches(), precision)


def print_profile(ours: TrainingSession) -> None:
    """Print where a step of our side spends its time."""
    ours.step(0)
    activities = [torch.profiler.ProfilerActivity.CPU]
    key = "self_cpu_time_total"
    if ours.device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
        key = "self_cuda_time_total"
    with torch.profiler.profile(activities=activities) as profile:
        ours.step(9)
    print(profile.key_averages().table(sort_by=key, row_limit=30))
