# SPDX-License-Identifier: Apache-2.0
"""What is kept of a filmed rollout: its video and the actions that were executed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlakit.evaluation.video import VideoFile
from vlakit.files import written_whole


class EpisodeFilm:
    """A video that grows step by step, and the actions behind it.

    Args:
        video_path: An mp4; its folder is made.
        trace_path: An npz with `actions` (steps, action_dim), written at the end.
        fps: Pictures per second.
    """

    def __init__(self, video_path: Path, trace_path: Path, fps: int) -> None:
        self.trace_path = trace_path
        self._video = VideoFile(video_path, fps)
        self._actions: list[NDArray[np.float32]] = []

    @property
    def video_path(self) -> Path:
        """The mp4."""
        return self._video.path

    def add(self, pictures: NDArray[np.uint8], actions: NDArray[np.float32] | None = None) -> None:
        """Append pictures (n, height, width, 3) and the actions (n, action_dim) that led there."""
        self._video.add(pictures)
        if actions is not None:
            self._actions.append(actions)

    def close(self) -> None:
        """Finish both files."""
        self._video.close()
        if not self._actions:
            return
        self.trace_path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(self.trace_path) as part, part.open("wb") as file:
            np.savez_compressed(file, actions=np.concatenate(self._actions))

    def discard(self) -> None:
        """Stop, and leave no files."""
        self._video.close()
        self.video_path.unlink(missing_ok=True)
