# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules; their recorded values are in tests/parity/schedule."""

from __future__ import annotations

import pytest

from vlakit.training.optimizer_config import (
    ConstantConfig,
    CosineAnnealingConfig,
    CosineDecayConfig,
)
from vlakit.training.schedule import scaled_lengths, schedule_multiplier, zero_rate_notice

EO1 = CosineDecayConfig(num_warmup_steps=900, num_decay_steps=30_000, peak_lr=1e-4, decay_lr=0.0)


def test_a_shorter_run_shrinks_warm_up_and_decay() -> None:
    assert scaled_lengths(EO1, 3000) == (90, 3000)
    assert scaled_lengths(EO1, 30_000) == scaled_lengths(EO1, 300_000) == (900, 30_000)


def test_the_rate_never_reaches_the_peak_and_drops_at_the_end_of_the_warm_up() -> None:
    multiplier = schedule_multiplier(EO1, 3000)
    assert multiplier(0) == pytest.approx(1 / 91)
    assert multiplier(89) == pytest.approx(0.989, abs=1e-3)
    assert multiplier(90) == pytest.approx(0.998, abs=1e-3)
    assert max(map(multiplier, range(3000))) < 1
    assert multiplier(3000) == 0


def test_the_issue_s_command_is_told_that_most_of_it_does_nothing() -> None:
    notice = zero_rate_notice(EO1, 300_000, is_preset=True)
    assert notice is not None
    assert "0 from step 30,000 on: 270,000 of 300,000 steps" in notice
    assert "--policy.scheduler_decay_steps=300000" in notice


@pytest.mark.parametrize("steps", [10, 3000, 29_999, 30_000])
def test_a_run_within_the_decay_has_no_notice_and_no_zero_rate(steps: int) -> None:
    assert zero_rate_notice(EO1, steps, is_preset=True) is None
    assert schedule_multiplier(EO1, steps)(steps - 1) > 0


def test_a_floor_above_zero_needs_no_notice_and_own_schedules_name_their_own_flags() -> None:
    floored = CosineDecayConfig(num_warmup_steps=0, num_decay_steps=10, peak_lr=1e-4, decay_lr=1e-6)
    assert zero_rate_notice(floored, 100, is_preset=False) is None
    notice = zero_rate_notice(EO1, 40_000, is_preset=False)
    assert notice is not None
    assert "--scheduler.num_decay_steps=40000" in notice


def test_constant_and_annealing_rise_from_zero() -> None:
    constant = schedule_multiplier(ConstantConfig(num_warmup_steps=4), 100)
    assert [constant(step) for step in (0, 2, 4, 99)] == [0, 0.5, 1, 1]
    annealing = schedule_multiplier(CosineAnnealingConfig(num_warmup_steps=4), 104)
    assert [annealing(step) for step in (0, 2, 4)] == [0, 0.5, 1]
    assert annealing(54) == pytest.approx(0.5)
    assert annealing(104) == pytest.approx(0)
