# SPDX-License-Identifier: Apache-2.0
"""Flags of the benchmarks that run a policy: how large, where, in which precision."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

import torch
from harness import shapes
from harness.timing import make_parser
from reference.measure import set_precision

CHECKPOINTING = {"no": (False,), "yes": (True,), "both": (False, True)}


def make_policy_parser(description: str | None, *, repeats: int) -> ArgumentParser:
    """Return `make_parser` with the flags of a policy; the arguments are the same."""
    parser = make_parser(description, repeats=repeats)
    parser.add_argument("--shape", choices=shapes.NAMES, default=shapes.TINY, help="of the network")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of both sides")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch", type=int, default=None, help="rows; default: of the shape")
    return parser


def make_inference_parser(description: str | None, *, repeats: int) -> ArgumentParser:
    """Return `make_policy_parser` with the flags of a chunk."""
    parser = make_policy_parser(description, repeats=repeats)
    parser.add_argument(
        "--compile", action="store_true", help="measure our side with compile_model=true as well"
    )
    return parser


COMPILE = {"compile_model": True, "compile_mode": "default"}
"""Settings of our side that is compiled."""


def make_training_parser(description: str | None, *, repeats: int) -> ArgumentParser:
    """Return `make_policy_parser` with the flags of a training step."""
    parser = make_policy_parser(description, repeats=repeats)
    parser.add_argument("--checkpointing", choices=tuple(CHECKPOINTING), default="both")
    parser.add_argument("--profile", action="store_true", help="print where our side spends time")
    return parser


def prepare(flags: Namespace) -> None:
    """Give this process the threads and the precision that the flags ask for."""
    torch.set_num_threads(flags.threads)
    set_precision(flags.device)


def described(flags: Namespace) -> dict[str, Any]:
    """Return what of the flags belongs into a result."""
    return {"shape": flags.shape, "on": flags.device, "dtype": flags.dtype}
