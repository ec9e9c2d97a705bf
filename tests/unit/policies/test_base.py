# SPDX-License-Identifier: Apache-2.0
"""Devices are taken as asked for, or refused."""

from __future__ import annotations

import pytest
import torch

from vlakit.errors import DeviceError, ProcessingError
from vlakit.policies.base import require, resolve_device


def test_a_device_that_is_there_is_returned() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device(None).type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda:99", "'cuda:99' is not available; this machine has"),
        ("gpu", "'gpu' is no device name; expected cpu"),
        ("xpu", "'xpu' is not available"),
    ],
)
def test_other_devices_are_refused(name: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        resolve_device(name)


def test_absent_entry_is_named() -> None:
    assert require({"a": 1}, "a") == 1
    with pytest.raises(ProcessingError, match=r"no 'b'.*preprocessor first"):
        require({"a": 1, "b": None}, "b")
