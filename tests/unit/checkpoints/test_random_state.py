# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random

import numpy as np
import torch

from vlakit.checkpoints.random_state import kept_random_state, random_state, set_random_state


def draws() -> tuple[float, float, float]:
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_the_state_of_all_three_generators_comes_back() -> None:
    saved = random_state()
    expected = draws()
    set_random_state(saved)
    assert draws() == expected


def test_what_is_drawn_inside_the_block_does_not_count() -> None:
    saved = random_state()
    expected = draws()
    set_random_state(saved)
    with kept_random_state():
        assert draws() == expected
    assert draws() == expected
