# SPDX-License-Identifier: Apache-2.0
"""What do 8-bit weights (--policy.weight_quantization=int8) cost and gain?

The same random weights whole and rounded: how far hidden states (pi0-FAST) and chunks (EO-1) move,
relative to the largest, how much memory the language model's layers take, how long a chunk takes.
A chunk of pi0-FAST may have other tokens with rounded weights, so its time is given per token too.

    python benchmarks/weight_quantization.py [--policy pi0_fast|eo1|both] [--shape tiny|middle|full]
        [--device cpu|cuda] [--dtype float32|bfloat16] [--threads 1]

Prints one JSON line per policy.
"""

from __future__ import annotations

import statistics
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import eo1_inference
import pi0_fast_inference
import torch
from harness import pi0_fast_workload, workload
from harness.latency import timed_on
from harness.policy_flags import described, make_policy_parser, prepare
from harness.timing import report, take_turns
from torch import Tensor, nn

from vlakit.policies.backbones.quantized import is_quantized, store_as_int8

WHOLE, INT8 = "whole", "int8"


def measure_pi0_fast(flags: Namespace, folder: Path) -> None:
    settings = {"shape": flags.shape, "device": flags.device, "dtype": flags.dtype}
    batch = pi0_fast_workload.write_batch(folder, shape=flags.shape, rows=flags.batch or 1)
    config = pi0_fast_workload.write_settings(folder, **settings)
    both = {name: pi0_fast_inference.Session(config, batch) for name in (WHOLE, INT8)}
    layers = {name: one.policy.model.paligemma.language_model.layers for name, one in both.items()}
    store_as_int8(layers[INT8])

    def hidden(name: str) -> Tensor:
        policy = both[name].policy
        inputs = policy._inputs(both[name].batch)
        start = torch.full((len(inputs.images), 1), 2, device=flags.device)
        return policy.model.prefill(inputs, start, causal_from=1, max_new_tokens=0).hidden

    chunks = {name: one.chunk for name, one in both.items()}
    tokens = {name: max(map(len, one._codes())) for name, one in both.items()}
    _measure("pi0-FAST with 8-bit weights", hidden, chunks, layers, flags, tokens)


def measure_eo1(flags: Namespace, folder: Path) -> None:
    rows = flags.batch or 1
    case = workload.Case(cameras=2, side=eo1_inference.SIDES[flags.shape], batch=rows)
    settings = {"shape": flags.shape, "device": flags.device, "dtype": flags.dtype}
    config = workload.write_settings(folder / "checkpoint", case, **settings)
    raw = workload.write_inputs(folder, case)
    both = {
        name: eo1_inference.Session(folder / "checkpoint", config, raw) for name in (WHOLE, INT8)
    }
    layers = {
        name: one.policy.model.vlm_backbone.model.language_model.layers
        for name, one in both.items()
    }
    store_as_int8(layers[INT8])
    chunks = {WHOLE: lambda: both[WHOLE].chunk(rows), INT8: lambda: both[INT8].chunk(rows)}
    _measure("eo1 with 8-bit weights", lambda name: chunks[name](), chunks, layers, flags)


def _measure(
    case: str,
    compared: Callable[[str], Tensor],
    chunks: dict[str, Callable[[], Any]],
    layers: dict[str, nn.ModuleList],
    flags: Namespace,
    tokens: dict[str, int] | None = None,
) -> None:
    exact, near = compared(WHOLE).float(), compared(INT8).float()
    sides = {name: timed_on(flags.device, chunk) for name, chunk in chunks.items()}
    times = take_turns(sides, repeats=flags.repeats, warmup=1)
    medians = {name: statistics.median(values) for name, values in times.items()}
    details: dict[str, Any] = described(flags)
    for name, count in (tokens or {}).items():
        details |= {
            f"{name}_tokens": count,
            f"{name}_ms_per_token": round(medians[name] / count, 3),
        }
    speed = medians[WHOLE] / medians[INT8]
    if tokens is not None:
        speed *= tokens[INT8] / tokens[WHOLE]
    details |= {f"{name}_mb": round(_stored(part) / 1e6, 1) for name, part in layers.items()}
    difference = float((near - exact).abs().max() / exact.abs().max())
    report(case, times, **details, difference=round(difference, 5), speed=round(speed, 3))


def _stored(layers: nn.ModuleList) -> int:
    """Return the bytes of the weights, of all their parts where they are rounded."""
    return sum(_bytes(weight) for weight in layers.parameters())


def _bytes(weight: Tensor) -> int:
    if not is_quantized(weight):
        return weight.nbytes
    names = weight.__tensor_flatten__()[0]  # type: ignore[attr-defined]
    return sum(getattr(weight, name).nbytes for name in names)


def main() -> None:
    parser = make_policy_parser(__doc__, repeats=10)
    parser.add_argument("--policy", choices=("pi0_fast", "eo1", "both"), default="both")
    flags = parser.parse_args()
    prepare(flags)
    ways = {"pi0_fast": measure_pi0_fast, "eo1": measure_eo1}
    for name, measure in ways.items():
        if flags.policy in (name, "both"):
            with tempfile.TemporaryDirectory() as folder:
                measure(flags, Path(folder))


if __name__ == "__main__":
    main()
