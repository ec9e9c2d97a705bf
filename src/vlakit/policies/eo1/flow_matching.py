# SPDX-License-Identifier: Apache-2.0
"""Flow matching on action chunks.

Time runs from 1 (noise) to 0 (action), as in openpi's code and not as in the pi0 paper:
x_t = t * noise + (1 - t) * action, and the velocity u_t = noise - action points towards the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

VelocityField = Callable[[Tensor, Tensor], Tensor]
"""(x_t, time) -> v_t: (batch, horizon, action_dim), (batch,) -> (batch, horizon, action_dim)."""


def sample_time(
    batch_size: int, *, alpha: float, beta: float, scale: float, offset: float
) -> Tensor:
    """Draw Beta(alpha, beta) * scale + offset from torch's CPU generator, float32 (batch,)."""
    # Parity: always drawn on the CPU, before the noise, so that one seed gives LeRobot's draws.
    concentrations = torch.tensor([alpha]), torch.tensor([beta])
    draws = torch.distributions.Beta(*concentrations, validate_args=False).sample((batch_size,))
    return draws.view(batch_size) * scale + offset


def embed_time(time: Tensor, width: int, *, min_period: float, max_period: float) -> Tensor:
    """Return sines then cosines of the time at geometrically spaced periods.

    Args:
        time: (batch,).
        width: even.
        min_period: of the first pair, in units of time.
        max_period: of the last pair.

    Returns:
        (batch, width) float64 (float32 where the device has no float64).
    """
    exact = torch.float32 if time.device.type == "mps" else torch.float64
    fractions = torch.linspace(0.0, 1.0, width // 2, dtype=exact, device=time.device)
    periods = min_period * (max_period / min_period) ** fractions
    angles = time.to(exact)[:, None] * (2 * math.pi / periods)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def interpolate(action: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Return the noisy action x_t and the velocity u_t that the model learns.

    Args:
        action: (batch, horizon, action_dim).
        noise: like action.
        time: (batch,), 1 for pure noise.
    """
    t = time[:, None, None]
    return t * noise + (1 - t) * action, noise - action


def euler_times(num_steps: int) -> Tensor:
    """Return the times at which `integrate` asks for the velocity, float32 (num_steps,)."""
    dt = -1.0 / num_steps
    return torch.tensor([1.0 + step * dt for step in range(num_steps)])


def integrate(velocity: VelocityField, noise: Tensor, num_steps: int) -> Tensor:
    """Follow the velocity from t=1 to t=0 in equal Euler steps. Source: openpi pi0.py:217@15a9616.

    Args:
        velocity: the velocity field.
        noise: (batch, horizon, action_dim), the state at t=1.
        num_steps: how often the velocity is asked for.
    """
    x_t, dt = noise, -1.0 / num_steps
    for step in range(num_steps):
        time = torch.full(x_t.shape[:1], 1.0 + step * dt, dtype=x_t.dtype, device=x_t.device)
        x_t = x_t + dt * velocity(x_t, time)
    return x_t


def velocity_loss(v_t: Tensor, u_t: Tensor, is_counted: Tensor | None = None) -> Tensor:
    """Return the mean squared error, over the counted actions only where some are not.

    Args:
        v_t: (batch, horizon, action_dim) predicted velocity.
        u_t: like v_t, the target.
        is_counted: (batch, horizon) boolean, or None to count all.
    """
    error = (v_t.float() - u_t.float()).square()
    if is_counted is None:
        return error.mean()
    weights = is_counted[:, :, None].to(error.dtype)
    return (error * weights).sum() / (weights.sum() * error.shape[-1]).clamp(min=1)
