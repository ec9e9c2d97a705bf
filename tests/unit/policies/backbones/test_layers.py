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


def test_rotation_keeps_lengths_and_relative_angles() -> None:
    x, y = torch.randn(8), torch.randn(8)
    angles = inverse_frequencies(4, 10.0, torch.device("cpu")).repeat(2)

    def turned(v: torch.Tensor, position: int) -> torch.Tensor:
        return rotate(v, (position * angles).cos(), (position * angles).sin())

    torch.testing.assert_close(turned(x, 3).norm(), x.norm())
    torch.testing.assert_close(turned(x, 3) @ turned(y, 5), turned(x, 10) @ turned(y, 12))


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_equal_transformers(name: str) -> None:
    x = torch.linspace(-4, 4, 33)
    theirs = ACT2FN["linear" if name == "identity" else name]
    torch.testing.assert_close(activation(name)(x), theirs(x), rtol=1e-6, atol=1e-6)


def test_unknown_activation_is_refused_with_the_nearest() -> None:
    assert isinstance(activation("linear"), torch.nn.Identity)
    with pytest.raises(ConfigError, match=r"'gleu' is unknown.*Did you mean 'gelu'"):
        activation("gleu")
