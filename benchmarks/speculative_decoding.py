# SPDX-License-Identifier: Apache-2.0
"""How many action tokens does a forward pass give when some are guessed, on a trained pi0-FAST?

Episodes of a dataset are walked through with the policy's own observations: it plans at every
`--every`-th frame, as a robot does that executes so many actions of each chunk. Tokens must be
those of plain decoding. What a pass over several tokens costs depends on the machine: the times are
this one's; on a GPU, where reading the weights bounds a pass, tokens per pass are near the gain.

    vlakit demo --policy.type=pi0_fast
    python benchmarks/speculative_decoding.py \
        --checkpoint outputs/demo/pi0_fast/train/checkpoints/last/pretrained_model \
        --dataset outputs/demo/dataset [--every 8 4 2 1]

Prints one JSON line per interval and kind.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness.timing import OURS, REFERENCE, make_parser, report, take_turns, timed

from vlakit.datasets import LeRobotDataset
from vlakit.features import ACTION
from vlakit.policies.pi0_fast import PI0FastPolicy
from vlakit.policies.processors import load_processors

KINDS = ("previous_chunk", "ngram")
EPISODES, PLANS = 6, 12
"""Episodes that are walked through, and the most plans in each."""


def observations(dataset: LeRobotDataset, every: int) -> list[list[dict[str, Any]]]:
    """Return per episode the raw observations at which it plans."""
    starts, ends = dataset.frames.episode_bounds
    chosen = np.linspace(0, len(starts) - 1, EPISODES).astype(int)
    walks = []
    for start, end in zip(starts[chosen], ends[chosen], strict=True):
        rows = range(int(start), int(end), every)[:PLANS]
        batches = (dataset.get_batch([row]) for row in rows)
        walks.append(
            [{k: v for k, v in batch.items() if not k.startswith(ACTION)} for batch in batches]
        )
    return walks


def walk(policy: PI0FastPolicy, walks: list[list[dict[str, Any]]]) -> list[list[int]]:
    """Return the tokens of every plan."""
    tokens = []
    for steps in walks:
        policy.reset()
        tokens += [policy.predict_action_tokens(batch)[0] for batch in steps]
    return tokens


def measure(
    kind: str, every: int, plain: PI0FastPolicy, walks: list[list[dict[str, Any]]], flags: Namespace
) -> None:
    policy = PI0FastPolicy.from_pretrained(
        flags.checkpoint, device=flags.device, engine="static", speculative=kind
    )
    expected = walk(plain, walks)
    assert walk(policy, walks) == expected, "guesses have changed tokens"
    # The prefill gives each chunk's first token in both ways.
    steps, passes = (
        count - len(expected) for count in (policy.decoded_tokens, policy.decoding_passes)
    )
    details = {"on": flags.device, "chunks": len(expected), "tokens": policy.decoded_tokens}
    details["tokens_per_pass"] = round(steps / passes, 3)
    sides = {
        OURS: timed(lambda: walk(policy, walks)),
        REFERENCE: timed(lambda: walk(plain, walks)),
    }
    times = take_turns(sides, repeats=flags.repeats)
    report(f"pi0-FAST, {kind}, a plan every {every} frames", times, **details)


def main() -> None:
    parser = make_parser(__doc__, repeats=3, other_process=False)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--every", type=int, nargs="+", default=[8, 4, 2, 1])
    parser.add_argument("--device", default="cpu")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    preprocess, _ = load_processors(flags.checkpoint, device=flags.device)
    plain = PI0FastPolicy.from_pretrained(flags.checkpoint, device=flags.device, engine="static")
    dataset = LeRobotDataset("benchmark", flags.dataset)
    for every in flags.every:
        walks = [[preprocess(raw) for raw in steps] for steps in observations(dataset, every)]
        for kind in KINDS:
            measure(kind, every, plain, walks, flags)


if __name__ == "__main__":
    main()
