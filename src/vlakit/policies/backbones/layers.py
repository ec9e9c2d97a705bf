# SPDX-License-Identifier: Apache-2.0
"""Building blocks of the transformers: norm, gated MLP, rotary embedding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vlakit.errors import ConfigError, did_you_mean


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class ClippedGELU(nn.Module):
    """GELU, at most 10."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x).clamp(-10, 10)


class SquaredReLU(nn.Module):
    """max(x, 0)^2."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


class GaussianCDF(nn.Module):
    """Hugging Face's `laplace`: the normal distribution function that comes closest to `relu2`."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * (1 + torch.erf((x - 0.707107) / (0.282095 * math.sqrt(2))))


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "identity": nn.Identity,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "gelu": nn.GELU,
    "gelu_python": nn.GELU,
    "gelu_10": ClippedGELU,
    "gelu_fast": lambda: nn.GELU(approximate="tanh"),
    "gelu_new": lambda: nn.GELU(approximate="tanh"),
    "gelu_pytorch_tanh": lambda: nn.GELU(approximate="tanh"),
    "gelu_python_tanh": lambda: nn.GELU(approximate="tanh"),
    "gelu_accurate": lambda: nn.GELU(approximate="tanh"),
    "quick_gelu": QuickGELU,
    "relu": nn.ReLU,
    "relu2": SquaredReLU,
    "relu6": nn.ReLU6,
    "prelu": nn.PReLU,
    "hardswish": nn.Hardswish,
    "leaky_relu": nn.LeakyReLU,
    "mish": nn.Mish,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "laplace": GaussianCDF,
}
"""Activations by Hugging Face's names."""


def activation(name: str) -> nn.Module:
    """Return the activation with Hugging Face's name.

    Raises:
        ConfigError: when there is none of that name.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(
            f"activation {name!r} is unknown; expected one of {', '.join(ACTIVATIONS)}."
            f"{did_you_mean(name, ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]()


class RMSNorm(nn.Module):
    """Divide by the root mean square over the last axis, in float32, then scale."""

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return x, (..., size), at unit mean square of its last axis, taken in float32; scaled."""
        if not torch.is_grad_enabled():  # equal to the bit; one kernel in the place of six
            return self.weight * F.rms_norm(x, self.weight.shape, eps=self.eps)
        return _RMSNormed.apply(x, self.weight, self.eps)


class _RMSNormed(torch.autograd.Function):
    """The norm with a derivative of its own: it keeps x alone, and passes over it less often."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, weight, scale)
        # Rounded to the storage type before the weight: bfloat16 results depend on the order.
        return weight * (wide * scale).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        x, weight, scale = ctx.saved_tensors
        normed = x.float() * scale
        product = grad.float() * normed
        # What points along x changes its length only, which the norm takes away.
        along = (product @ weight.float() / x.shape[-1])[..., None]
        across = (grad * weight).float().addcmul_(normed, along, value=-1).mul_(scale)
        total = product.reshape(-1, x.shape[-1]).sum(0)
        return across.to(x.dtype), total.to(weight.dtype), None


class JoinedMaps:
    """Linear maps with one input whose weights lie one below another, each still a parameter.

    One product then stands for several, and nothing is stored twice: checkpoints, optimisers and
    training see the separate parameters.
    """

    def __init__(self, *maps: nn.Linear) -> None:
        """Lay the weights out anew; each parameter becomes a view of a part."""
        self._weight = _laid_out([part.weight for part in maps])
        biases = [part.bias for part in maps if part.bias is not None]
        self._bias = _laid_out(biases) if biases else None

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs of all maps side by side, (..., sum of sizes), from (..., size)."""
        return F.linear(x, self._weight, self._bias)


def _laid_out(parameters: Sequence[Tensor]) -> Tensor:
    joined = torch.cat([parameter.data for parameter in parameters])
    pieces = joined.split([len(parameter) for parameter in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.data = piece
    return joined


class GatedMLP(nn.Module):
    """down(act(gate(x)) * up(x))."""

    def __init__(self, size: int, inner_size: int, act: str, *, bias: bool) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size, inner_size, bias=bias)
        self.up_proj = nn.Linear(size, inner_size, bias=bias)
        self.down_proj = nn.Linear(inner_size, size, bias=bias)
        self.act = activation(act)
        self.joined: JoinedMaps | None = None

    def join_weights(self) -> None:
        """Let `forward` compute both inner maps at once where it is allowed to."""
        self.joined = JoinedMaps(self.gate_proj, self.up_proj)

    def forward(self, x: Tensor, *, uses_joined: bool = False) -> Tensor:
        """Return (..., size) from (..., size)."""
        if uses_joined and self.joined is not None:
            gate, up = self.joined(x).chunk(2, dim=-1)
        else:
            gate, up = self.gate_proj(x), self.up_proj(x)
        return self.down_proj(self.act(gate) * up)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (first half, second half) of the last axis by its angle.

    Args:
        x: (..., head_dim).
        cos: cosines, broadcastable to x, each half repeating the same angles.
        sin: sines, likewise.
    """
    if torch.is_grad_enabled():
        return _Rotated.apply(x, cos, sin)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class _Rotated(torch.autograd.Function):
    """The turn, and the turn back as its derivative, half by half: no turned copy of x is made."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.dtype = x.dtype
        first, second = x.chunk(2, dim=-1)
        sin_first, sin_second = sin.chunk(2, dim=-1)
        out = x * cos
        half = x.shape[-1] // 2
        out[..., :half] -= second * sin_first
        out[..., half:] += first * sin_second
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        cos, sin = ctx.saved_tensors
        first, second = (grad * sin).chunk(2, dim=-1)
        out = grad * cos
        half = grad.shape[-1] // 2
        out[..., :half] += second
        out[..., half:] -= first
        return out.to(ctx.dtype), None, None


def inverse_frequencies(count: int, theta: float, device: torch.device) -> Tensor:
    """Return `count` rotary frequencies theta^(-i/count), float32, shape (count,)."""
    exponents = torch.arange(0, 2 * count, 2, dtype=torch.int64, device=device).float() / (
        2 * count
    )
    return 1.0 / theta**exponents


def take_columns(x: Tensor, columns: Tensor) -> Tensor:
    """Return the entries of each row in its columns.

    Args:
        x: (batch, length, width).
        columns: (batch, n).

    Returns:
        (batch, n, width).
    """
    return x.gather(1, columns[..., None].expand(-1, -1, x.shape[-1]))
