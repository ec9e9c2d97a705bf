# SPDX-License-Identifier: Apache-2.0
"""One thread per test process: results do not depend on the machine, and xdist uses the cores."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    """Start every test from the same random state."""
    torch.manual_seed(0)
