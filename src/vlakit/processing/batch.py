# SPDX-License-Identifier: Apache-2.0
"""The shape of a batch: which keys travel on, the leading axis, and the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlakit.errors import ConfigError, DeviceError, ProcessingError
from vlakit.features import (
    ACTION,
    ACTION_IS_PAD,
    OBS_ENV_STATE,
    OBS_IMAGE,
    OBS_IMAGES,
    OBS_PREFIX,
    OBS_STATE,
    TASK,
)
from vlakit.processing.step import Step

_KEPT_KEYS = {
    *(TASK, "index", "task_index", "episode_index", "timestamp", "messages"),
    *("language_persistent", "language_events", "message_streams", "target_message_indices"),
}
_DEFAULTS = {"next.reward": 0.0, "next.done": False, "next.truncated": False}
_FLOAT_DTYPES = {
    "float16": torch.float16,
    "half": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float": torch.float32,
    "float64": torch.float64,
    "double": torch.float64,
}


def is_camera(name: str) -> bool:
    """Return whether a feature of this name is a camera's image."""
    return name == OBS_IMAGE or name.startswith(f"{OBS_IMAGES}.")


def flat_batch(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a raw batch that travel through a pipeline.

    Parity: LeRobot keeps observations, action, padding masks, task and a few indices, drops every
    other column, and always has `action` (None at inference), reward, done, truncated and info.

    Raises:
        ProcessingError: `raw` is no dictionary.
    """
    if not isinstance(raw, Mapping):
        raise ProcessingError(
            f"a pipeline got {type(raw).__name__}: expected a dict with 'observation.*' and "
            "'task', or a tensor of actions."
        )
    batch = {
        key: _without_numpy(value)
        for key, value in raw.items()
        if key.startswith(OBS_PREFIX) or key in _KEPT_KEYS or "_is_pad" in key
    }
    batch[ACTION] = _without_numpy(raw.get(ACTION))
    for key, default in _DEFAULTS.items():
        batch[key] = raw.get(key, default)
    batch["info"] = raw.get("info", {})
    return batch


def _without_numpy(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    # A flipped image has negative strides, a frame of a video reader may be read-only: copy those.
    as_it_is = value.flags.writeable and all(stride >= 0 for stride in value.strides)
    return torch.from_numpy(value if as_it_is else value.copy())


class ToBatch(Step):
    """Adds the leading axis to a single observation; a batch passes unchanged."""

    registry_name = "to_batch_processor"

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return states as (batch, dim), images as (batch, c, h, w), and a list of tasks."""
        single = _ndim(batch.get(OBS_STATE)) == 1
        batch = {key: self._with_axis(key, value, single) for key, value in batch.items()}
        if isinstance(batch.get(TASK), str):
            batch[TASK] = [batch[TASK]]
        return batch

    def _with_axis(self, key: str, value: Any, single: bool) -> Any:
        ndim = _ndim(value)
        if key in (OBS_STATE, OBS_ENV_STATE):
            missing = ndim == 1
        elif key == ACTION:
            # A chunk (horizon, dim) looks like a batch of actions; a single state tells them apart.
            missing = ndim == 1 or (ndim == 2 and single)
        elif is_camera(key):
            missing = ndim == 3
        elif key == ACTION_IS_PAD:
            missing = ndim == 1 and single
        else:
            missing = ndim == 0 and key in ("index", "task_index", "episode_index")
        return value.unsqueeze(0) if missing else value


def _ndim(value: Any) -> int:
    return value.ndim if isinstance(value, Tensor) else -1


class ToDevice(Step):
    """Moves every tensor to the policy's device, and floats to a dtype if one is named."""

    registry_name = "device_processor"

    def __init__(self, device: str = "cpu", float_dtype: str | None = None) -> None:
        """Check the device and the dtype.

        Raises:
            DeviceError: this machine has no such device.
            ConfigError: the dtype's name is unknown.
        """
        if float_dtype is not None and float_dtype not in _FLOAT_DTYPES:
            raise ConfigError(
                f"float_dtype={float_dtype!r} of the device step is not one of "
                f"{sorted(_FLOAT_DTYPES)} or null."
            )
        self.device = self._target = _available(device)
        self.float_dtype = float_dtype
        self._device_name = device

    def config(self) -> dict[str, Any]:
        return {"device": self._device_name, "float_dtype": self.float_dtype}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch on the device; what is on another GPU of the same kind stays there."""
        return {key: self._move(value) for key, value in batch.items()}

    def prepare(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch as it is: a worker never touches the device."""
        return batch

    def deliver(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch on the device."""
        return self(batch)

    def _move(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        # Parity: under several GPUs the launcher has placed the tensor already.
        stays = value.is_cuda and self._target.type == "cuda"
        device = value.device if stays else self._target
        dtype = _FLOAT_DTYPES.get(self.float_dtype or "") if value.is_floating_point() else None
        # A copy to the CPU must have arrived before anyone reads it.
        return value.to(device, dtype or value.dtype, non_blocking=device.type == "cuda")


def _available(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(
            f"device={name!r} is not a device: expected cpu, cuda, cuda:<n> or mps."
        ) from None
    found = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
        "meta": True,
    }
    if not found.get(device.type, True):
        raise DeviceError(
            f"device={name!r} is not available on this machine. Pass device='cpu' "
            "(--policy.device=cpu) or install the torch build for that device."
        )
    return device
