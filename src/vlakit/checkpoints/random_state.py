# SPDX-License-Identifier: Apache-2.0
"""The state of Python's, numpy's and torch's random generators as tensors, in LeRobot's layout."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def random_state() -> dict[str, Tensor]:
    """Return the state of Python's, numpy's and torch's generators."""
    version, words, _ = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    assert kind == "MT19937"
    state = {
        "py_rng_version": torch.tensor([version], dtype=torch.int64),
        "py_rng_state": torch.tensor(words, dtype=torch.int64),
        "np_rng_state_values": torch.tensor(np.asarray(keys).astype(np.int64)),
        "np_rng_state_index": torch.tensor([position], dtype=torch.int64),
        "np_rng_has_gauss": torch.tensor([has_gauss], dtype=torch.int64),
        "np_rng_cached_gaussian": torch.tensor([cached], dtype=torch.float32),
        "torch_rng_state": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["torch_cuda_rng_state"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Tensor]) -> None:
    """Set Python's, numpy's and torch's generators to a state of `random_state`."""
    words = tuple(state["py_rng_state"].tolist())
    random.setstate((int(state["py_rng_version"]), words, None))
    np.random.set_state(
        (
            "MT19937",
            state["np_rng_state_values"].numpy().astype(np.uint32),
            int(state["np_rng_state_index"]),
            int(state["np_rng_has_gauss"]),
            float(state["np_rng_cached_gaussian"]),
        )
    )
    torch.set_rng_state(state["torch_rng_state"])
    if "torch_cuda_rng_state" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["torch_cuda_rng_state"])


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Leave the generators as they were when the block ends."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)
