# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from vlakit.errors import ConfigError, DeviceError, ProcessingError
from vlakit.processing.batch import ToBatch, ToDevice, flat_batch


def test_only_what_lerobot_keeps_travels_on() -> None:
    batch = flat_batch({"observation.state": 1, "frame_index": 3, "task": "x", "a_is_pad": True})
    assert batch == {
        "observation.state": 1,
        "task": "x",
        "a_is_pad": True,
        "action": None,
        "next.reward": 0.0,
        "next.done": False,
        "next.truncated": False,
        "info": {},
    }


def test_numpy_arrays_become_tensors() -> None:
    batch = flat_batch({"observation.state": np.zeros(3), "action": np.ones(2)})
    assert isinstance(batch["observation.state"], torch.Tensor)
    assert isinstance(batch["action"], torch.Tensor)


def test_flipped_and_read_only_arrays_are_taken() -> None:
    frozen = np.arange(4.0)
    frozen.flags.writeable = False
    batch = flat_batch({"observation.state": frozen, "observation.x": np.arange(3.0)[::-1]})
    assert batch["observation.state"].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert batch["observation.x"].tolist() == [2.0, 1.0, 0.0]


def test_what_is_no_batch_is_refused() -> None:
    with pytest.raises(ProcessingError, match="a pipeline got list"):
        flat_batch([1, 2])  # type: ignore[arg-type]


def test_a_single_sample_gets_the_leading_axis() -> None:
    sample = {
        "observation.state": torch.zeros(4),
        "observation.image": torch.zeros(3, 8, 8),
        "action": torch.zeros(5, 2),
        "action_is_pad": torch.zeros(5, dtype=torch.bool),
        "index": torch.tensor(3),
        "task": "go",
    }
    batch = ToBatch()(sample)
    assert all(len(value) == 1 for value in batch.values())
    assert batch["task"] == ["go"]
    assert batch["action"].shape == (1, 5, 2)


def test_a_batch_passes_unchanged() -> None:
    batch = {"observation.state": torch.zeros(4, 2), "action": torch.zeros(4, 2), "task": ["a"] * 4}
    assert ToBatch()(batch) == batch


def test_floats_take_the_dtype_and_integers_keep_theirs() -> None:
    moved = ToDevice("cpu", "bfloat16")({"x": torch.zeros(1), "n": torch.zeros(1).long(), "t": "a"})
    assert (moved["x"].dtype, moved["n"].dtype, moved["t"]) == (torch.bfloat16, torch.int64, "a")


@pytest.mark.parametrize("name", ["cuda:63", "toaster"])
def test_a_device_that_is_not_there_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=f"device='{name}' is not"):
        ToDevice(name)


def test_an_unknown_dtype_is_named() -> None:
    with pytest.raises(ConfigError, match="float_dtype='float8'"):
        ToDevice("cpu", "float8")
