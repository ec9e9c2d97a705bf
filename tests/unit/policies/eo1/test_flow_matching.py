# SPDX-License-Identifier: Apache-2.0
"""The flow's path, its integration, its draws and its loss."""

from __future__ import annotations

import math

import pytest
import torch

from vlakit.policies.eo1.flow_matching import (
    embed_time,
    integrate,
    interpolate,
    sample_time,
    velocity_loss,
)


def test_path_runs_from_action_at_0_to_noise_at_1() -> None:
    action, noise = torch.randn(2, 8, 7), torch.randn(2, 8, 7)
    x_t, u_t = interpolate(action, noise, torch.tensor([0.0, 1.0]))
    assert x_t[0].equal(action[0])
    assert x_t[1].equal(noise[1])
    assert u_t.equal(noise - action)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_integrate_recovers_the_action_from_its_true_velocity(steps: int) -> None:
    action, noise = torch.randn(2, 8, 7), torch.randn(2, 8, 7)
    _, u_t = interpolate(action, noise, torch.tensor([0.3, 0.9]))
    torch.testing.assert_close(integrate(lambda x_t, time: u_t, noise, steps), action)


def test_integrate_asks_for_evenly_spaced_times_from_1() -> None:
    times: list[float] = []

    def velocity(x_t: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        times.append(time[0].item())
        return torch.zeros_like(x_t)

    integrate(velocity, torch.zeros(1, 1, 1), 4)
    assert times == [1.0, 0.75, 0.5, 0.25]


def test_times_follow_the_scaled_beta() -> None:
    times = sample_time(20_000, alpha=1.5, beta=1.0, scale=0.999, offset=0.001)
    assert times.shape == (20_000,)
    assert times.dtype == torch.float32
    assert times.min() > 0.001
    assert times.max() <= 1.0
    assert times.mean().item() == pytest.approx(0.6 * 0.999 + 0.001, abs=0.01)


def test_time_embedding_has_the_stated_periods() -> None:
    embedded = embed_time(torch.tensor([0.25, 0.5]), 6, min_period=0.01, max_period=1.0)
    assert embedded.dtype == torch.float64
    for row, time in zip(embedded, (0.25, 0.5), strict=True):
        for i, period in enumerate((0.01, 0.1, 1.0)):
            angle = 2 * math.pi * time / period
            assert row[i].item() == pytest.approx(math.sin(angle), abs=1e-9)
            assert row[3 + i].item() == pytest.approx(math.cos(angle), abs=1e-9)


def test_loss_is_the_mean_over_counted_actions() -> None:
    v_t, u_t = torch.zeros(2, 2, 3), torch.ones(2, 2, 3)
    u_t[1, 1] = 100
    is_counted = torch.tensor([[True, True], [True, False]])
    assert velocity_loss(v_t, u_t, is_counted).item() == 1.0
    assert velocity_loss(v_t, u_t).item() == pytest.approx((9 + 3e4) / 12)
