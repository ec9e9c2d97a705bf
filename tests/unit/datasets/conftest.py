# SPDX-License-Identifier: Apache-2.0
"""Tiny recordings that the tests of this folder share."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlakit.datasets import LeRobotDatasetWriter

FPS = 10
FEATURES: dict[str, dict[str, Any]] = {
    "observation.state": {"dtype": "float32", "shape": (5,), "names": list("abcde")},
    "action": {"dtype": "float32", "shape": (3,)},
    "observation.images.top": {"dtype": "video", "shape": (32, 48, 3)},
    "observation.images.wrist": {"dtype": "image", "shape": (20, 24, 3)},
    "next.done": {"dtype": "bool", "shape": (1,)},
    "grid": {"dtype": "float32", "shape": (2, 3)},
    "note": {"dtype": "string", "shape": (1,)},
}
EPISODES = ((12, "pick"), (7, "place – überall"), (15, "pick"))


def picture(step: int, height: int, width: int) -> np.ndarray:
    """Smooth colours that move with the step: codecs keep them well."""
    y, x = np.mgrid[:height, :width]
    return np.stack([(2 * x + 5 * step) % 200, (3 * y + step) % 200, x + y], -1).astype(np.uint8)


def make_frame(episode: int, step: int, length: int, task: str) -> dict[str, Any]:
    random = np.random.default_rng(1000 * episode + step)
    return {
        "observation.state": random.normal(size=5).astype(np.float32),
        "action": random.normal(size=3).astype(np.float32),
        "observation.images.top": picture(step + 15 * episode, 32, 48),
        "observation.images.wrist": picture(step + 7 * episode, 20, 24),
        "next.done": step == length - 1,
        "grid": random.normal(size=(2, 3)).astype(np.float32),
        "note": f"step {step}",
        "task": task,
    }


def all_frames() -> list[dict[str, Any]]:
    return [
        make_frame(episode, step, length, task)
        for episode, (length, task) in enumerate(EPISODES)
        for step in range(length)
    ]


def record(root: Path, features: dict[str, dict[str, Any]] | None = None, **settings: Any) -> Path:
    """Record EPISODES into `root`."""
    features = features or FEATURES
    settings = {"vcodec": "h264", "crf": 18, "preset": "ultrafast", "encoder_threads": 1} | settings
    with LeRobotDatasetWriter.create("me/toy", FPS, features, root, "toy", **settings) as writer:
        for episode, (length, task) in enumerate(EPISODES):
            for step in range(length):
                frame = make_frame(episode, step, length, task)
                writer.add_frame({k: v for k, v in frame.items() if k in features or k == "task"})
            writer.save_episode()
    return root


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording nobody changes; data and videos lie in several files."""
    root = tmp_path_factory.mktemp("recorded") / "toy"
    return record(root, data_files_size_in_mb=0.004, video_files_size_in_mb=0.004)


@pytest.fixture
def damaged(recorded: Path, tmp_path: Path) -> Path:
    """A copy of the recording for a test to damage."""
    return Path(shutil.copytree(recorded, tmp_path / "toy"))
