# SPDX-License-Identifier: Apache-2.0
"""Whether the videos are all there, asked before a run that would miss their last frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av

from vlakit.datasets.metadata import DatasetMetadata
from vlakit.datasets.reading.video import broken_video
from vlakit.errors import DatasetError

_MOST_FILES_CHECKED = 1000


def check_videos(meta: DatasetMetadata, episodes: Sequence[int]) -> None:
    """Make sure that the videos reach to the end of these episodes, without decoding any.

    Of very many files some, spread evenly, are looked at: each takes about a millisecond.

    Raises:
        DatasetError: a file is missing, cut off, no video, or shorter than the metadata say.
    """
    needed: dict[str, float] = {}
    for spans in meta.episodes.videos.values():
        for episode in episodes:
            length_s = (int(meta.episodes.lengths[episode]) - 1) / meta.fps
            end = float(spans.from_timestamps[episode]) + length_s
            needed[spans.paths[episode]] = max(end, needed.get(spans.paths[episode], 0.0))
    step = -(-len(needed) // _MOST_FILES_CHECKED) or 1
    for path in list(needed)[::step]:
        _check_video(meta.root / path, needed[path])


def _check_video(path: Path, last_s: float) -> None:
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            entries = getattr(stream, "index_entries", None) or []
            stored = max((entry.pos + entry.size for entry in entries), default=0)
            start = stream.start_time or 0
            end_s = None
            if stream.duration is not None and stream.time_base is not None:
                end_s = float((start + stream.duration) * stream.time_base)
    except (av.FFmpegError, IndexError, OSError) as error:
        raise broken_video(path, error) from error
    if stored > path.stat().st_size:
        raise broken_video(path, ValueError(f"{path.stat().st_size} bytes of {stored}"))
    if end_s is not None and last_s >= end_s:
        raise DatasetError(
            f"{path} ends at {end_s:.3f} s, but the metadata promise a frame at {last_s:.3f} s. "
            "The video was cut off: fetch the dataset again, record it anew, or leave its last "
            "episode out with --dataset.episodes."
        )
