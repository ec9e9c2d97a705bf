# SPDX-License-Identifier: Apache-2.0
"""Small blocks behave as their formulas say."""

from __future__ import annotations

import pytest
import torch
from transformers.activations import ACT2FN

from vlakit.errors import ConfigError
from vlakit.policies.backbones.layers import (
    ACTIVATIONS,
    RMSNorm,
    activation,
    inverse_frequencies,
    rotate,
)


def test_norm_has_unit_root_mean_square() -> None:
    norm = RMSNorm(64, eps=0.0)
    out = norm(3 * torch.randn(5, 64))
    torch.testing.assert_close(out.square().mean(-1), torch.ones(5))


def _plain_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


@pytest.mark.parametrize(
    ("storage", "weights", "tolerance"),
    [
        (torch.float32, torch.float32, 1e-6),
        (torch.bfloat16, torch.float32, 1e-2),  # as under mixed precision
        (torch.bfloat16, torch.bfloat16, 1e-2),
    ],
)
def test_norm_has_the_derivative_of_its_formula(
    storage: torch.dtype, weights: torch.dtype, tolerance: float
) -> None:
    norm = RMSNorm(24).to(weights)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(2, 5, 24).to(storage).requires_grad_()
    out, plain = norm(x), _plain_norm(x, norm.weight, norm.eps)
    assert out.equal(plain)
    assert out.dtype == plain.dtype
    grad = torch.randn(2, 5, 24).to(out.dtype)
    ours = torch.autograd.grad(out, (x, norm.weight), grad)
    for own, expected in zip(ours, torch.autograd.grad(plain, (x, norm.weight), grad), strict=True):
        assert own.dtype == expected.dtype
        assert (own - expected).norm() < tolerance * expected.norm()


def test_rotation_keeps_lengths_and_relative_angles() -> None:
    x, y = torch.randn(8), torch.randn(8)
    angles = inverse_frequencies(4, 10.0, torch.device("cpu")).repeat(2)

    def turned(v: torch.Tensor, position: int) -> torch.Tensor:
        return rotate(v, (position * angles).cos(), (position * angles).sin())

    torch.testing.assert_close(turned(x, 3).norm(), x.norm())
    torch.testing.assert_close(turned(x, 3) @ turned(y, 5), turned(x, 10) @ turned(y, 12))


def _plain_turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


@pytest.mark.parametrize(
    ("storage", "angles", "tolerance"),
    [
        (torch.float32, torch.float32, 1e-6),
        (torch.bfloat16, torch.float32, 1e-2),  # as under mixed precision
        (torch.bfloat16, torch.bfloat16, 1e-2),
    ],
)
def test_rotation_has_the_derivative_of_its_formula(
    storage: torch.dtype, angles: torch.dtype, tolerance: float
) -> None:
    x = torch.randn(2, 3, 5, 8).to(storage).requires_grad_()
    cos, sin = (torch.randn(2, 1, 5, 8).to(angles) for _ in range(2))
    out, plain = rotate(x, cos, sin), _plain_turn(x, cos, sin)
    assert out.equal(plain)
    assert out.dtype == plain.dtype
    grad = torch.randn(2, 3, 5, 8).to(out.dtype)
    (own,), (expected,) = (torch.autograd.grad(y, x, grad) for y in (out, plain))
    assert own.dtype == expected.dtype
    assert (own - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_equal_transformers(name: str) -> None:
    x = torch.linspace(-4, 4, 33)
    theirs = ACT2FN["linear" if name == "identity" else name]
    torch.testing.assert_close(activation(name)(x), theirs(x), rtol=1e-6, atol=1e-6)


def test_unknown_activation_is_refused_with_the_nearest() -> None:
    assert isinstance(activation("linear"), torch.nn.Identity)
    with pytest.raises(ConfigError, match=r"'gleu' is unknown.*Did you mean 'gelu'"):
        activation("gleu")
