# SPDX-License-Identifier: Apache-2.0
"""A recording of a made-up arm, without a camera: smooth joints and a gripper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vlakit.datasets import LeRobotDatasetWriter

FPS = 10
NAMES = ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]


def arm_actions(episode: int, length: int, dim: int = 7) -> np.ndarray:
    """Return the actions of one episode, (length, dim), float32."""
    random = np.random.default_rng(episode)
    time = np.arange(length)[:, None] / FPS
    speed, phase = random.uniform(0.5, 3, dim), random.uniform(0, 6, dim)
    actions = np.sin(speed * time + phase) * np.arange(1, dim + 1)
    actions[:, -1] = (time[:, 0] * 2 % 2 > 1).astype(float)
    return actions.astype(np.float32)


def record_arm(root: Path, lengths: Sequence[int] = (30, 24, 7, 40), dim: int = 7) -> Path:
    """Record one episode per length; the state is half of the action."""
    names = NAMES[-dim:]
    features = {
        "observation.state": {"dtype": "float32", "shape": (dim,), "names": names},
        "action": {"dtype": "float32", "shape": (dim,), "names": names},
    }
    with LeRobotDatasetWriter.create("me/arm", FPS, features, root, "arm") as writer:
        for episode, length in enumerate(lengths):
            for action in arm_actions(episode, length, dim):
                writer.add_frame({"observation.state": action / 2, "action": action, "task": "go"})
            writer.save_episode()
    return root
