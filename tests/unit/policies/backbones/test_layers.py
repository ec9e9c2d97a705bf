# SPDX-License-Identifier: Apache-2.0
"""Small blocks behave as their formulas say."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.activations import ACT2FN

from vlakit.errors import ConfigError
from vlakit.policies.backbones.block_execution import Recompute, run_block
from vlakit.policies.backbones.layers import (
    ACTIVATIONS,
    GatedMLP,
    JoinedMaps,
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


class _Operations(TorchDispatchMode):
    """Counts what is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def _backward_operations(recompute: Recompute) -> Counter[str]:
    """Return what the backward pass of an MLP computes."""
    torch.manual_seed(0)
    block = GatedMLP(64, 256, "silu", bias=False)
    x = torch.randn(8, 64, requires_grad=True)
    loss = run_block(block, x, recompute=recompute).sum()
    with _Operations() as seen:
        loss.backward()
    return seen.counts


def test_the_backward_pass_repeats_what_it_is_told_to() -> None:
    none, layer, selective = map(_backward_operations, ("none", "layer", "selective"))
    assert none["silu"] == 0
    assert layer["silu"] == selective["silu"] == 1
    assert none["mm"] == selective["mm"] == 6, "two for each of three maps"
    assert layer["mm"] > none["mm"]


@pytest.mark.parametrize("recompute", ["layer", "selective"])
def test_nothing_is_recomputed_where_no_gradient_is_taken(recompute: Recompute) -> None:
    block, calls = nn.Linear(2, 2), []
    block.register_forward_hook(lambda *_: calls.append(1))
    x = torch.ones(1, 2)
    with torch.no_grad():
        assert not run_block(block, x, recompute=recompute).requires_grad
    run_block(block.eval(), x, recompute=recompute).sum().backward()
    assert len(calls) == 2


@pytest.mark.parametrize("bias", [True, False])
def test_joined_maps_are_the_separate_ones_without_a_copy(bias: bool) -> None:
    maps = [nn.Linear(5, size, bias=bias) for size in (4, 2, 3)]
    before = [{k: v.clone() for k, v in part.state_dict().items()} for part in maps]
    joined, x = JoinedMaps(*maps), torch.randn(2, 5)
    for part, old in zip(maps, before, strict=True):
        assert all(torch.equal(part.state_dict()[name], value) for name, value in old.items())
    assert len({part.weight.untyped_storage().data_ptr() for part in maps}) == 1
    expected = torch.cat([part(x) for part in maps], dim=-1)
    torch.testing.assert_close(joined(x), expected)
    with torch.no_grad():
        maps[1].weight.mul_(-2)  # as an optimiser does
    torch.testing.assert_close(joined(x), torch.cat([part(x) for part in maps], dim=-1))
