# SPDX-License-Identifier: Apache-2.0
"""Weights of linear maps as 8-bit integers with a scale per row; products stay as they were."""

from __future__ import annotations

from torch import Tensor, nn

from vlakit.errors import ConfigError

_PARTS = "__tensor_flatten__"
"""What torch calls the method that names the tensors which another one is made of."""


def store_as_int8(layers: nn.Module) -> None:
    """Replace the weights of every linear map in the layers, which then can predict only.

    Args:
        layers: on their device.

    Raises:
        ConfigError: torchao is not installed.
    """
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise ConfigError(
            "--policy.weight_quantization=int8 needs the package torchao, which is not installed: "
            "`pip install 'vlakit[int8]'`, or give none."
        ) from error
    quantize_(layers, Int8WeightOnlyConfig())


def is_quantized(weight: Tensor) -> bool:
    """Return whether a weight is made of other tensors."""
    return hasattr(weight, _PARTS)


def addresses(weight: Tensor) -> tuple[int, ...]:
    """Return where a weight lies, all its parts if it has some."""
    if not is_quantized(weight):
        return (weight.data_ptr(),)
    names = getattr(weight, _PARTS)()[0]
    return tuple(getattr(weight, name).data_ptr() for name in names)
