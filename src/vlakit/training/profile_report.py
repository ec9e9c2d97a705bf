# SPDX-License-Identifier: Apache-2.0
"""What a profile says: `profile.json` and a table on the screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.table import Table

PROFILE_FILE = "profile.json"

PHASES = {
    "data_wait": "waiting for data",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "clipping and optimiser",
    "other": "other",
}
"""Parts of a step in their order -> what the table calls them. Together they are the step."""


@dataclass(frozen=True, kw_only=True)
class ProfileReport:
    """Means over the profiled steps."""

    device: str
    threads: int
    torch_version: str
    compute_dtype: str
    skipped_steps: int
    """Steps before the profiled ones, which warmed up."""
    steps: int
    batch_size: int
    """Samples of the last step."""
    seconds: dict[str, float]
    """Per step, by the names of `PHASES`."""
    transfer_s: float
    """Copying one batch to the device; a thread does it beside the step."""
    samples: float
    """Per step."""
    tokens: float
    """Per step, without padding."""
    flops_per_step: int
    """Of the model: without what is recomputed."""
    matrix_flops_per_s: float
    """What a large matrix product reaches in the same type."""
    peak_memory_bytes: int
    peak_memory_kind: str

    @property
    def step_s(self) -> float:
        return sum(self.seconds.values())

    @property
    def model_flops_per_s(self) -> float:
        return self.flops_per_step / self.step_s

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation: the share of the device's measured matrix rate."""
        return self.model_flops_per_s / self.matrix_flops_per_s

    def to_json(self) -> dict[str, Any]:
        """Return the content of `profile.json`; times in milliseconds, shares in [0, 1]."""
        parts = self.seconds | {"transfer": self.transfer_s}
        return {
            "device": self.device,
            "threads": self.threads,
            "torch": self.torch_version,
            "compute_dtype": self.compute_dtype,
            "batch_size": self.batch_size,
            "skipped_steps": self.skipped_steps,
            "steps": self.steps,
            "step_ms": self.step_s * 1e3,
            "phases": {
                name: {"ms": seconds * 1e3, "share": seconds / self.step_s}
                for name, seconds in parts.items()
            },
            "samples_per_s": self.samples / self.step_s,
            "tokens_per_s": self.tokens / self.step_s,
            "model_flops_per_step": self.flops_per_step,
            "model_flops_per_s": self.model_flops_per_s,
            "matrix_flops_per_s": self.matrix_flops_per_s,
            "mfu": self.mfu,
            "peak_memory_bytes": self.peak_memory_bytes,
            "peak_memory_kind": self.peak_memory_kind,
        }

    def table(self) -> Table:
        """Return the same for the screen."""
        table = Table(
            title=f"{self.steps} training steps of {self.batch_size} samples, after "
            f"{self.skipped_steps} to warm up ({self.device}, {self.compute_dtype})"
        )
        table.add_column("phase")
        table.add_column("ms", justify="right")
        table.add_column("share", justify="right")
        for name, label in PHASES.items():
            table.add_row(label, *self._columns(self.seconds[name]))
        table.add_section()
        table.add_row("whole step", *self._columns(self.step_s))
        table.add_row("transfer to the device, beside it", *self._columns(self.transfer_s))
        table.add_section()
        for label, figure in self._figures():
            table.add_row(label, figure, "")
        return table

    def _columns(self, seconds: float) -> tuple[str, str]:
        return f"{seconds * 1e3:,.1f}", f"{seconds / self.step_s:.1%}"

    def _figures(self) -> list[tuple[str, str]]:
        return [
            ("samples/s", f"{self.samples / self.step_s:,.2f}"),
            ("tokens/s", f"{self.tokens / self.step_s:,.0f}"),
            ("model TFLOP/s", f"{self.model_flops_per_s / 1e12:,.3f}"),
            ("matrix TFLOP/s, measured", f"{self.matrix_flops_per_s / 1e12:,.3f}"),
            ("MFU", f"{self.mfu:.1%}"),
            (f"peak memory, GB ({self.peak_memory_kind})", f"{self.peak_memory_bytes / 1e9:,.2f}"),
        ]
