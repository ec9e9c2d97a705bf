# SPDX-License-Identifier: Apache-2.0
"""What of the targets is met, as a Markdown table of the lines that the benchmarks printed.

    python benchmarks/table.py RESULTS.jsonl [MORE.jsonl ...]

Files of a CPU and of a GPU go together; where a case was measured twice, the last line counts. A
ratio is ours by the reference's, so below 1 is good. A row without a line is "not measured".
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NOT_MEASURED = "not measured"
Line = dict[str, Any]


@dataclass(frozen=True)
class Value:
    """Which numbers of a line a target is about."""

    ours: str
    reference: str | None
    unit: str


TIME = Value("ours_ms", "reference_ms", "ms")
COMPILED = Value("compiled_ours_ms", "reference_ms", "ms")
COMPILED_TOKEN = Value("compiled_ours_ms_per_token", None, "ms")
MEMORY = Value("ours_beyond_state_mb", "reference_beyond_state_mb", "MB")
"""Gradients and activations: what a step takes beyond the weights and the optimiser's moments."""
WITH_STATE = Value("ours_beyond_weights_mb", "reference_beyond_weights_mb", "MB")
TOKEN = Value("ours_ms_per_token", None, "ms")


@dataclass(frozen=True)
class Target:
    """One row of the table on one device."""

    what: str
    case: str
    """Regular expression that the line's `case` begins with."""
    on: str
    limit: float
    """Of the ratio, or of our value where the value has no reference."""
    value: Value = TIME
    wanted: dict[str, Any] = field(default_factory=dict)
    """Other entries that the line must have."""

    def line(self, lines: Iterable[Line]) -> Line | None:
        """Return the last line of this target, None where there is none."""
        found = [
            line
            for line in lines
            if re.match(self.case, line["case"])
            and line.get("on", "cpu") == self.on
            and all(line.get(name) == value for name, value in self.wanted.items())
            and self.value.ours in line
        ]
        return found[-1] if found else None

    def cells(self, line: Line | None) -> list[str]:
        """Return ours, reference, ratio, target and whether it is met."""
        value, is_ratio = self.value, self.value.reference is not None
        target = f"<= {self.limit:g}" + ("x" if is_ratio else f" {value.unit}")
        if line is None:
            return [NOT_MEASURED, "", "", target, ""]
        ours = line[value.ours]
        cells = [f"{_amount(ours)} {value.unit}"]
        if value.reference is None:
            return [*cells, "", "", target, _yes_or_no(ours <= self.limit)]
        if value.reference not in line:
            return [*cells, NOT_MEASURED, "", target, ""]
        ratio = ours / line[value.reference]
        reference = f"{_amount(line[value.reference])} {value.unit}"
        return [*cells, reference, _ratio(ratio), target, _yes_or_no(ratio <= self.limit)]


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _ratio(value: float) -> str:
    return f"{value:.2f}x" if value >= 0.1 else f"{value:.2g}x"  # 0.055 is not 0.05


def _yes_or_no(met: bool) -> str:
    return "yes" if met else "no"


PI0_CHUNK, PI0_STEP = "pi0-FAST action chunk", "pi0-FAST training step"
EO1_CHUNK, EO1_STEP = "eo1 action chunk", "eo1 training step"
PLAIN, RECOMPUTED = {"gradient_checkpointing": False}, {"gradient_checkpointing": True}
MIDDLE, FULL = {"shape": "middle"}, {"shape": "full"}

TARGETS = (
    Target("pi0-FAST chunk, middle", PI0_CHUNK, "cpu", 0.75, wanted=MIDDLE),
    Target("EO-1 chunk, middle", EO1_CHUNK, "cpu", 0.85, wanted=MIDDLE),
    Target("pi0-FAST training step, middle", PI0_STEP, "cpu", 0.65, wanted=MIDDLE | PLAIN),
    Target("its memory beyond weights and moments", PI0_STEP, "cpu", 0.5, MEMORY, MIDDLE | PLAIN),
    Target("its memory, AdamW's moments counted", PI0_STEP, "cpu", 0.5, WITH_STATE, MIDDLE | PLAIN),
    Target("EO-1 training step, middle", EO1_STEP, "cpu", 0.85, wanted=MIDDLE | PLAIN),
    Target("the same with checkpointing", EO1_STEP, "cpu", 0.7, wanted=MIDDLE | RECOMPUTED),
    Target("dataset with video, this process", r"loader, video, 0 workers$", "cpu", 0.5),
    Target("the same with 2 workers", r"loader, video, 2 workers$", "cpu", 0.5),
    Target(
        "dataset without video, chunk of 10", r"loader, low-dimensional, 0 workers$", "cpu", 0.05
    ),
    Target("the same with 2 workers", r"loader, low-dimensional, 2 workers$", "cpu", 0.05),
    Target("start of training to first step", "training run of one step", "cpu", 0.5),
    Target("pi0-FAST chunk, gemma_2b", PI0_CHUNK, "cuda", 0.12, wanted=FULL),
    Target("its time per token", PI0_CHUNK, "cuda", 2.0, TOKEN, FULL),
    Target("pi0-FAST chunk, compiled", PI0_CHUNK, "cuda", 0.12, COMPILED, FULL),
    Target("its time per token", PI0_CHUNK, "cuda", 2.0, COMPILED_TOKEN, FULL),
    Target("EO-1 chunk, 3B", EO1_CHUNK, "cuda", 0.2, wanted=FULL),
    Target("EO-1 chunk, compiled", EO1_CHUNK, "cuda", 0.2, COMPILED, FULL),
    Target("pi0-FAST training step, gemma_2b", PI0_STEP, "cuda", 0.6, wanted=FULL | PLAIN),
    Target("its memory beyond weights and moments", PI0_STEP, "cuda", 0.5, MEMORY, FULL | PLAIN),
    Target("EO-1 training step, 3B", EO1_STEP, "cuda", 0.7, wanted=FULL | PLAIN),
    Target("the same with checkpointing", EO1_STEP, "cuda", 0.6, wanted=FULL | RECOMPUTED),
)
"""The targets of the issue on speed."""

_HEAD = ("what", "device", "ours", "reference", "ours / reference", "target", "met")


def read_lines(paths: Iterable[Path]) -> list[Line]:
    """Return the results of the files; what is no JSON object (progress) is left out."""
    texts = [text for path in paths for text in path.read_text(encoding="utf-8").splitlines()]
    lines = [json.loads(text) for text in texts if text.startswith("{")]
    return [line for line in lines if "case" in line]


def table(lines: list[Line]) -> str:
    """Return the targets as a Markdown table."""
    rows = [_HEAD, ("---",) * len(_HEAD)]
    for target in TARGETS:
        device = "GPU" if target.on == "cuda" else "CPU"
        rows.append((target.what, device, *target.cells(target.line(lines))))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def circumstances(lines: list[Line]) -> str:
    """Return the machines, versions and commits of the lines, each combination once."""
    names = ("device", "accelerator", "threads", "torch", "vlakit", "commit")
    found = dict.fromkeys(
        ", ".join(f"{name} {line[name]}" for name in names if line.get(name) is not None)
        for line in lines
    )
    return "\n".join(f"- {text}" for text in found)


def main() -> None:
    parser = argparse.ArgumentParser(description="what of the targets is met, as Markdown")
    parser.add_argument("results", type=Path, nargs="+", help="lines that the benchmarks printed")
    lines = read_lines(parser.parse_args().results)
    if not lines:
        sys.exit("the files hold no result of a benchmark")
    print(table(lines), circumstances(lines), sep="\n\n")


if __name__ == "__main__":
    main()
