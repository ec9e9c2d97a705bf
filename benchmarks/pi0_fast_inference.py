# SPDX-License-Identifier: Apache-2.0
"""How long does a robot wait for a pi0-FAST action chunk, compared with LeRobot's policy?

From the preprocessed observation (two cameras, an empty one, a prompt of 40 tokens in 200) to
actions; on LeRobot's side only to their tokens. Both generate equally many tokens: ours decides how
many a chunk takes, LeRobot generates as many and never ends before. LeRobot's would be a few more,
since it also says "Action: " and "|", which ours need not generate: the comparison favours it.

Before it is measured, our network decodes in LeRobot's way: token for token the same in float32; in
bfloat16, where two tokens may be as good, the losses of one batch agree.

    python benchmarks/pi0_fast_inference.py [--shape tiny|middle|full] [--device cpu|cuda]
        [--dtype float32|bfloat16] [--reference-python PYTHON] [--threads 1]

Prints one JSON line. `*_ms_per_token` and `*_prefill_ms` follow from a second policy with a shorter
chunk: the difference of the two calls by the difference of their tokens, and what remains.
"""

from __future__ import annotations

import statistics
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from harness.device_rates import copy_bandwidth
from harness.latency import timed_on, warm_up
from harness.pi0_fast_workload import HORIZON, lerobot_sizes, write_batch, write_settings
from harness.policy_flags import COMPILE, described, make_inference_parser, prepare
from harness.reference_process import Reference
from harness.timing import COMPILED, OURS, REFERENCE, Side, report, take_turns
from harness.training import check_weights
from reference.measure import DeviceStopwatch
from reference.named_weights import fill_by_name
from torch import Tensor

from vlakit.policies.pi0_fast import PI0FastConfig, PI0FastPolicy

SHORT, LONG = 2, HORIZON
"""Horizons of the two policies."""
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.02}
"""Of the loss, relative."""


class Session:
    """Our side: one policy and the batch."""

    def __init__(self, config: PI0FastConfig, batch: dict[str, Tensor]) -> None:
        assert config.device is not None
        watch = DeviceStopwatch(config.device)
        self.policy = PI0FastPolicy(config, device=config.device)
        self.filled = fill_by_name(self.policy)
        self.build_ms = watch.ms
        self.batch = {name: value.to(config.device) for name, value in batch.items()}
        self.side = timed_on(config.device, self.chunk)
        self.warmup = warm_up(self.side)
        watch = DeviceStopwatch(config.device)
        self.tokens = max(map(len, self._codes()))
        self.first_call_ms = watch.ms

    def chunk(self) -> Tensor:
        return self.policy.predict_action_chunk(self.batch)

    def _codes(self) -> list[list[int]]:
        vocabulary = self.policy.codec.vocabulary
        ids = self.policy.predict_action_tokens(self.batch)
        return [vocabulary.codes(row, check_prefix=True) for row in ids]

    def token_bytes(self) -> int:
        """Return the bytes that a token reads: all layers, and the head's action rows."""
        paligemma = self.policy.model.paligemma
        read = [*paligemma.language_model.layers.parameters()]
        head = paligemma.lm_head.weight[: self.policy.codec.fast_tokenizer.vocab_size]
        return sum(value.numel() * value.element_size() for value in [*read, head])


@torch.no_grad()
def check_agreement(ours: Session, reference: Reference, config: PI0FastConfig) -> dict[str, Any]:
    """Compare losses, and tokens decoded in LeRobot's way; returns how far they agree."""
    loss, theirs = float(ours.policy.forward(ours.batch)[0]), reference.call("loss")["loss"]
    difference = abs(loss - theirs) / abs(theirs)
    assert difference < TOLERANCE[config.dtype], f"the losses differ by {difference}"
    settings = {"decoding": "reference", "max_decoding_steps": ours.tokens}
    plain = PI0FastPolicy(config.override(settings), device=config.device)
    fill_by_name(plain)
    mine = plain.predict_action_tokens(ours.batch)
    answer = reference.call("generate", tokens=ours.tokens, rows=len(mine), with_values=True)
    pairs = [list(zip(a, b, strict=True)) for a, b in zip(mine, answer["ids"], strict=True)]
    equal = sum(a == b for row in pairs for a, b in row) / sum(map(len, pairs))
    assert config.dtype != "float32" or equal == 1.0, f"tokens differ: {equal:.0%} are equal"
    return {"difference": difference, "equal_tokens": round(equal, 3)}


def split(times: dict[str, list[float]], tokens: dict[int, int]) -> dict[str, Any]:
    """Return what a token and the prefill take, from the calls of two lengths.

    Args:
        times: milliseconds of the calls by name, the short ones with `short_` before it.
        tokens: horizon -> generated tokens.
    """
    found: dict[str, Any] = {"tokens": tokens[LONG], "short_tokens": tokens[SHORT]}
    for name in (OURS, COMPILED, REFERENCE):
        if name not in times:
            continue
        long, short = (statistics.median(times[prefix + name]) for prefix in ("", "short_"))
        per_token = (long - short) / (tokens[LONG] - tokens[SHORT])
        found[f"{name}_ms_per_token"] = round(per_token, 3)
        found[f"{name}_prefill_ms"] = round(long - per_token * tokens[LONG], 2)
        found[f"{name}_call_ms_per_token"] = round(long / tokens[LONG], 3)
    if REFERENCE in times:
        mine, theirs = found[f"{OURS}_ms_per_token"], found[f"{REFERENCE}_ms_per_token"]
        found["per_token_ours_over_reference"] = round(mine / theirs, 3)
    return found


def measure(
    sessions: dict[int, Session],
    compiled: dict[int, Session],
    reference: Reference | None,
    flags: Namespace,
) -> None:
    ours, short = sessions[LONG], sessions[SHORT]
    tokens = {horizon: session.tokens for horizon, session in sessions.items()}
    sides: dict[str, Side] = {
        OURS: ours.side,
        f"short_{OURS}": short.side,
    }
    details = described(flags) | {"build_ms": round(ours.build_ms)} | ours.warmup
    if reference is not None:
        details |= check_agreement(ours, reference, ours.policy.config)
        for name, horizon in (("", LONG), ("short_", SHORT)):
            call = reference.side("generate", tokens=tokens[horizon], rows=flags.batch)
            sides[name + REFERENCE] = call
    times = take_turns(sides, repeats=flags.repeats, warmup=2)
    details |= split(times, tokens)
    bandwidth = copy_bandwidth(flags.device)
    bound_ms = 1e3 * ours.token_bytes() / bandwidth
    details |= {"token_bound_ms": round(bound_ms, 3), "copy_gb_s": round(bandwidth / 1e9, 1)}
    details["share_of_bound"] = round(bound_ms / details[f"{OURS}_ms_per_token"], 3)
    whole = {name: times[name] for name in (OURS, COMPILED, REFERENCE) if name in times}
    case = f"pi0-FAST action chunk, 2 cameras and an empty one, batch {flags.batch}"
    report(case, whole, **details)


def main() -> None:
    parser = make_inference_parser(__doc__, repeats=20)
    parser.set_defaults(batch=1)
    flags = parser.parse_args()
    prepare(flags)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {"shape": flags.shape, "device": flags.device, "dtype": flags.dtype}
        batch = write_batch(folder, shape=flags.shape, rows=flags.batch)
        configs = {
            horizon: write_settings(folder, horizon=horizon, **settings)
            for horizon in (SHORT, LONG)
        }
        sessions = {horizon: Session(config, batch) for horizon, config in configs.items()}
        compiled = {
            horizon: Session(config.override(COMPILE), batch)
            for horizon, config in configs.items()
            if flags.compile
        }
        if flags.reference_python is None or flags.device == "cuda":
            measure(
                sessions, compiled, None, flags
            )  # on a GPU also alone: it stays if the reference fails
        if flags.reference_python is None:
            return
        with Reference.from_flags(flags, "pi0_fast.py", folder) as reference:
            loaded = reference.call(
                "load", sizes=lerobot_sizes(flags.shape), gradient_checkpointing=False
            )
            check_weights(sessions[LONG].filled, loaded)
            measure(sessions, compiled, reference, flags)


if __name__ == "__main__":
    main()
