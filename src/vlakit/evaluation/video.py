# SPDX-License-Identifier: Apache-2.0
"""Rollouts as mp4 files that every browser plays: h264, yuv420p, even sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from numpy.typing import NDArray


class VideoFile:
    """An mp4 that grows picture by picture, so that no episode has to fit in memory.

    Args:
        path: The file; its folder is made.
        fps: Pictures per second.
    """

    def __init__(self, path: Path, fps: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._fps = fps
        self._container = av.open(str(path), "w", options={"movflags": "+faststart"})
        self._stream: Any = None

    def add(self, pictures: NDArray[np.uint8]) -> None:
        """Append pictures (n, height, width, 3); an odd row or column at the end is cut off."""
        height, width = (side - side % 2 for side in pictures.shape[1:3])
        if self._stream is None:
            stream = cast(Any, self._container.add_stream("libx264", rate=self._fps))
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            stream.options = {"crf": "23", "preset": "veryfast"}
            stream.codec_context.thread_count = 1
            self._stream = stream
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(picture[:height, :width]), format="rgb24"
            )
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder still holds and finish the file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
