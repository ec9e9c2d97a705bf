# SPDX-License-Identifier: Apache-2.0
"""Where the time of a training step goes: `vlakit train --profile`.

The device is waited for around every phase, which is what makes the figures true and the run a
little slower. After the profiled steps all of it is switched off and the run goes on.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch

from vlakit.policies.base import Policy
from vlakit.processing.batch import ToDevice
from vlakit.processing.pipeline import Pipeline
from vlakit.training.profile_flops import forward_flops, matrix_rate
from vlakit.training.profile_report import PHASES, ProfileReport

Phase = Literal["data_wait", "forward", "backward", "optimizer", "other"]
Timer = Callable[[Phase], AbstractContextManager[Any]]
"""Context in which a phase of the step runs."""

WARM_UP = 3
"""Steps before those that count: memory is fetched, kernels are chosen and compiled."""


def untimed(_phase: Phase) -> AbstractContextManager[Any]:
    """Return a context that does nothing: a run without a profiler."""
    return nullcontext()


class StepProfiler:
    """Times the first steps of a run, phase by phase."""

    def __init__(
        self,
        policy: Policy,
        preprocess: Pipeline,
        *,
        num_steps: int,
        precision: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        """Begin to watch the transfers of the preprocessor.

        Args:
            policy: on its device.
            preprocess: changed until `finish`: its `ToDevice` is timed.
            num_steps: steps that count, after `WARM_UP` others.
            precision: makes the context of a forward pass.
        """
        self.policy, self.precision = policy, precision
        self.device = policy.device
        self.last_step = WARM_UP + num_steps
        self.flops: int | None = None
        """Of one step; counted once."""
        self._steps: list[dict[str, float]] = []
        self._samples: list[int] = []
        self._tokens: list[int] = []
        self._times: dict[str, float] = {}
        self._transfers = _Transfers(preprocess)

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Time a phase, up to where the device has done all of it."""
        self._wait()
        started = time.perf_counter()
        yield
        self._wait()
        self._times[name] = self._times.get(name, 0.0) + time.perf_counter() - started

    def before_step(self, batch: Mapping[str, Any], data_wait_s: float) -> None:
        """Look at a batch that is about to be trained on.

        Args:
            batch: preprocessed.
            data_wait_s: how long the step has waited for it.
        """
        if self.flops is None:
            self.flops = forward_flops(self.policy, batch, self.precision) * 3
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
        self._samples.append(len(batch["action"]))
        self._tokens.append(self.policy.num_tokens(batch))
        self._times = {"data_wait": data_wait_s}

    def after_step(self) -> bool:
        """Close a step; returns whether it was the last one to be profiled."""
        self._steps.append(self._times)
        return len(self._steps) == self.last_step

    def finish(self) -> ProfileReport:
        """Stop watching and return what was seen; at least one step is done."""
        moved_s = self._transfers.stop()
        # Short runs count what they have; only the very first step of several never counts.
        skipped = min(WARM_UP, max(len(self._steps) - 1, 0))
        steps = self._steps[skipped:]
        peak, kind = peak_memory(self.device)
        dtype = self._compute_dtype()
        assert self.flops is not None
        return ProfileReport(
            device=_device_name(self.device),
            threads=torch.get_num_threads(),
            torch_version=torch.__version__,
            compute_dtype=str(dtype).removeprefix("torch."),
            skipped_steps=skipped,
            steps=len(steps),
            batch_size=self._samples[-1],
            seconds={
                name: sum(step.get(name, 0.0) for step in steps) / len(steps) for name in PHASES
            },
            transfer_s=sum(moved_s) / max(len(moved_s), 1),
            samples=sum(self._samples[skipped:]) / len(steps),
            tokens=sum(self._tokens[skipped:]) / len(steps),
            flops_per_step=self.flops,
            matrix_flops_per_s=matrix_rate(self.device, dtype),
            peak_memory_bytes=peak,
            peak_memory_kind=kind,
        )

    def _compute_dtype(self) -> torch.dtype:
        """Return the type of most products: autocast's, or that of most weights."""
        kind = self.device.type
        with self.precision():
            if torch.is_autocast_enabled(kind):
                return torch.get_autocast_dtype(kind)
        sizes: dict[torch.dtype, int] = {}
        for weight in self.policy.parameters():
            sizes[weight.dtype] = sizes.get(weight.dtype, 0) + weight.numel()
        return max(sizes, key=lambda dtype: sizes[dtype])

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class _Transfers:
    """Times the copies to the device, which the thread that prepares batches starts."""

    def __init__(self, preprocess: Pipeline) -> None:
        self._preprocess = preprocess
        self._seconds: list[float | tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._index = next(
            (i for i, step in enumerate(preprocess.steps) if isinstance(step, ToDevice)), None
        )
        if self._index is None:
            return
        self._untimed = preprocess.steps[self._index]
        timed = _TimedToDevice.__new__(_TimedToDevice)
        vars(timed).update(vars(self._untimed))
        timed.seconds = self._seconds
        preprocess.steps[self._index] = timed

    def stop(self) -> list[float]:
        """Put the plain step back; returns the seconds of each batch's copies."""
        if self._index is None:
            return []
        self._preprocess.steps[self._index] = self._untimed
        return [
            took if isinstance(took, float) else took[0].elapsed_time(took[1]) / 1000
            for took in list(self._seconds)
        ]


class _TimedToDevice(ToDevice):
    """A `ToDevice` that notes how long it takes: on a GPU by events, which make nobody wait."""

    seconds: list[Any]

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self._target.type != "cuda":
            started = time.perf_counter()
            moved = super().__call__(batch)
            self.seconds.append(time.perf_counter() - started)
            return moved
        events = tuple(torch.cuda.Event(enable_timing=True) for _ in range(2))
        events[0].record()
        moved = super().__call__(batch)
        events[1].record()
        self.seconds.append(events)
        return moved


def peak_memory(device: torch.device) -> tuple[int, str]:
    """Return the most bytes in use so far, and what they are: a GPU's, or the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "allocated on the GPU"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "resident, this process"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
