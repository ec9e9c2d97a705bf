# SPDX-License-Identifier: Apache-2.0
"""Items equal LeRobot 0.6.1's, to the bit, for both versions of the format."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.fixtures_root import FIXTURE_ROOT
from vlakit.datasets import LeRobotDataset

FOLDER = FIXTURE_ROOT / "dataset"
RECORDED = ("plain", "action_chunk8", "history", "episode_subset")


def open_recorded(name: str, version: str, **options: Any) -> tuple[LeRobotDataset, dict, dict]:
    expected = json.loads((FOLDER / f"items_{name}.json").read_text(encoding="utf-8"))
    dataset = LeRobotDataset(
        "fixture",
        FOLDER / version,
        expected["episodes"],
        expected["delta_timestamps"],
        **options,
    )
    return dataset, expected, load_file(FOLDER / f"items_{name}.safetensors")


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
@pytest.mark.parametrize("name", RECORDED)
def test_items_equal_the_references(name: str, version: str) -> None:
    dataset, expected, tensors = open_recorded(name, version)
    assert (len(dataset), dataset.num_episodes, dataset.fps) == (
        expected["len"],
        expected["num_episodes"],
        expected["fps"],
    )
    cameras = dataset.meta.camera_keys
    for record in expected["items"]:
        index = record["index"]
        item = dataset[index]
        assert sorted(item) == record["keys"]
        assert item.pop("task") == record["task"]
        for key, value in item.items():
            assert list(value.shape) == record[f"{key}#shape"], key
            if key in cameras:
                # Exact with PyAV's own swscale, which the fixtures were made with.
                assert value.dtype == torch.float32
                assert value.mean().item() == pytest.approx(record[f"{key}#mean"], abs=1e-6)
                recorded = tensors.get(f"{index}.{key}")
                if recorded is not None:
                    assert torch.equal(value, recorded.float() / 255), (index, key)
            else:
                assert str(value.dtype) == record[f"{key}#dtype"], key
                assert torch.equal(value, tensors[f"{index}.{key}"]), (index, key)


def test_a_batch_holds_the_same_values_as_its_items() -> None:
    dataset, _, _ = open_recorded("history", "v3.0")
    indices = [76, 0, 24, 23, 0, 57]
    batch = dataset.get_batch(indices)
    for row, index in enumerate(indices):
        for key, value in dataset[index].items():
            if key == "task":
                assert batch[key][row] == value
            else:
                assert torch.equal(batch[key][row], value), key


@pytest.mark.parametrize("cache_frames", [False, True])
def test_uint8_and_cached_frames_hold_the_same_values(cache_frames: bool) -> None:
    plain, _, _ = open_recorded("history", "v3.0")
    other, _, _ = open_recorded("history", "v3.0", return_uint8=True, cache_frames=cache_frames)
    for index in (0, 23, 24, 60, 76):
        for key in plain.meta.camera_keys:
            assert other[index][key].dtype == torch.uint8
            assert torch.equal(other[index][key].float() / 255, plain[index][key])


def test_written_values_come_back() -> None:
    dataset, _, _ = open_recorded("plain", "v3.0")
    written = load_file(FOLDER / "written_state_action.safetensors")
    for name, key in (("observation.state", "states"), ("action", "actions")):
        assert torch.equal(torch.from_numpy(dataset.frames.numeric[name]), written[key])
