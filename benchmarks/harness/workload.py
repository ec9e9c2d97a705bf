# SPDX-License-Identifier: Apache-2.0
"""What the EO-1 benchmarks run on: settings and inputs that both sides read from one folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from harness import shapes
from safetensors.torch import save_file

from vlakit.features import FeatureType, PolicyFeature
from vlakit.hub import resolve
from vlakit.policies.eo1 import EO1Config
from vlakit.policies.eo1.processor import make_processors

PRESET = shapes.QWEN_PRESET
STATE, ACTION, CHUNK = "observation.state", "action", 8
STATE_DIM, ACTION_DIM = 8, 4
TASKS = ("open the drawer", "close the drawer", "push the green button twice")


@dataclass(frozen=True)
class Case:
    """One size of input."""

    cameras: int
    side: int
    """Height and width of every camera in pixels; a multiple of 28 is not resized."""
    batch: int

    @property
    def name(self) -> str:
        plural = "s" if self.cameras > 1 else ""
        return f"{self.cameras} camera{plural} {self.side}x{self.side}, batch {self.batch}"

    @property
    def camera_keys(self) -> list[str]:
        return [f"observation.images.cam{number}" for number in range(self.cameras)]


def write_settings(folder: Path, case: Case, *, shape: str, device: str, dtype: str) -> EO1Config:
    """Write settings and processors in LeRobot's layout, without weights, and return them.

    Both sides build the network of these settings and fill it with `named_weights`.
    """
    folder.mkdir(parents=True)
    features = {
        name: PolicyFeature(FeatureType.VISUAL, (3, case.side, case.side))
        for name in case.camera_keys
    }
    config = EO1Config(
        # The folder rather than the preset's name, which the reference does not know.
        vlm_base=str(resolve(PRESET)),
        vlm_config=shapes.qwen_config(shape, dtype),
        device=device,
        dtype=dtype,
        input_features=features | {STATE: PolicyFeature(FeatureType.STATE, (STATE_DIM,))},
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (ACTION_DIM,))},
        chunk_size=CHUNK,
        n_action_steps=CHUNK,
        image_min_pixels=84 * 84,
        image_max_pixels=256 * 256,
    )
    config.save(folder)
    stats = {
        STATE: {"mean": [0.1] * STATE_DIM, "std": [0.9] * STATE_DIM},
        ACTION: {"mean": [0.0] * ACTION_DIM, "std": [1.1] * ACTION_DIM},
    }
    for pipeline in make_processors(config, stats):
        pipeline.save(folder)
    return config


def write_inputs(folder: Path, case: Case) -> dict[str, Any]:
    """Write one raw training batch and return it: uint8 cameras, state, action, padding, tasks."""
    generator = torch.Generator().manual_seed(1)
    shape = (case.batch, 3, case.side, case.side)
    tensors = {
        name: torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        for name in case.camera_keys
    }
    tensors[STATE] = torch.randn(case.batch, STATE_DIM, generator=generator)
    tensors[ACTION] = torch.randn(case.batch, CHUNK, ACTION_DIM, generator=generator)
    tensors["action_is_pad"] = torch.zeros(case.batch, CHUNK, dtype=torch.bool)
    tensors["action_is_pad"][-1, -2:] = True
    tasks = [TASKS[row % len(TASKS)] for row in range(case.batch)]
    save_file(tensors, folder / "inputs.safetensors")
    (folder / "inputs.json").write_text(json.dumps({"task": tasks}), encoding="utf-8")
    return tensors | {"task": tasks}


def observations(raw: dict[str, Any], rows: int) -> dict[str, Any]:
    """Return the first rows of a raw batch without what a robot does not know."""
    return {name: value[:rows] for name, value in raw.items() if not name.startswith(ACTION)}
