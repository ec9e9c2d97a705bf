# SPDX-License-Identifier: Apache-2.0
"""What each policy of the demo cost: size, training, latency, tokens, malformed chunks."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlakit.checkpoints.pretrained import stored_tensors
from vlakit.cli.demo_flags import POLICY_NAMES, DemoFlags
from vlakit.cli.demo_steps import CONDITIONS, checkpoint, training_title
from vlakit.evaluation.report import Comparison

NOTE = (
    "A chunk is one call of the policy: pictures in, {horizon} actions out, for all rollouts that "
    "run side by side. Both policies saw the same demonstrations, but their sizes and steps differ "
    "and neither was tuned to the end, so the table tells what these two runs cost, not which "
    "method is better."
)


def compare_costs(flags: DemoFlags, seconds: Mapping[str, float]) -> Comparison:
    """Return the table of costs.

    Args:
        flags: The demo's flags; its output folder holds what the commands wrote.
        seconds: How long each step took, by title.
    """
    policies = flags.policy.names
    columns = [_costs(flags, policy, seconds[training_title(policy)]) for policy in policies]
    horizon = _config(flags, policies[0])["n_action_steps"]
    return Comparison(
        policies=[POLICY_NAMES[policy] for policy in policies],
        rows=[(name, [column[name] for column in columns]) for name in columns[0]],
        note=NOTE.format(horizon=horizon),
    )


def _costs(flags: DemoFlags, policy: str, training_seconds: float) -> dict[str, str]:
    folder = checkpoint(flags, policy)
    episodes = list(_episodes(flags.folder(policy)))
    latency = np.array([ms for episode in episodes for ms in episode["plan_ms"]])
    p50, p95 = np.percentile(latency, [50, 95])
    log = _lines(flags.folder(policy) / "train/log.jsonl")
    speed = statistics.median(line["samples_per_s"] for line in log if "samples_per_s" in line)
    return {
        "parameters": f"{_count_parameters(folder) / 1e6:.2f} M",
        "training": f"{log[-1]['step']:,} steps of {flags.batch_size} in {training_seconds:.0f} s",
        "training speed, median": f"{speed:.0f} samples/s",
        "latency of a chunk, median": f"{p50:.0f} ms",
        "latency of a chunk, 95th percentile": f"{p95:.0f} ms",
        "action tokens of a chunk": _tokens(flags) if policy == "pi0_fast" else "none: denoised",
        "malformed chunks": _malformed(episodes),
    }


def _episodes(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the rollouts of the policy's first condition, as `eval_info.json` has them."""
    path = folder / CONDITIONS[0].folder / "eval_info.json"
    for task in json.loads(path.read_text(encoding="utf-8"))["per_task"]:
        yield from task["episodes"]


def _malformed(episodes: list[dict[str, Any]]) -> str:
    failures = sum(episode["decode_failures"] for episode in episodes)
    return f"{failures} of {sum(episode['num_plans'] for episode in episodes):,}"


def _tokens(flags: DemoFlags) -> str:
    """Return the length of the demonstrations' chunks in tokens."""
    path = flags.fast_tokenizer / "metadata.json"
    report = json.loads(path.read_text(encoding="utf-8"))["compression_stats"]
    return (
        f"{report['mean_token_length']:.1f} on average, {report['p99_token_length']:.0f} at the "
        f"99th percentile ({report['compression_ratio']:.1f} numbers per token)"
    )


def _count_parameters(folder: Path) -> int:
    return sum(math.prod(tensor.shape) for tensor in stored_tensors(folder))


def _config(flags: DemoFlags, policy: str) -> dict[str, Any]:
    path = checkpoint(flags, policy) / "config.json"
    return json.loads(path.read_text(encoding="utf-8"))


def _lines(path: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if "loss" in line]
