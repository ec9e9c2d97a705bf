# SPDX-License-Identifier: Apache-2.0
"""Frames of mp4 files by their time, with PyAV; a bounded cache keeps files open.

A decoder goes forward as long as that is cheaper than seeking, so sorted times cost one pass over
the file. Every returned frame is checked against the time asked for.
"""

from __future__ import annotations

import gc
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vlakit.errors import ConfigError, DatasetError


class PyavDecoder:
    """One open video file, read with PyAV.

    Args:
        path: the file.
        threads: decoding threads; 1 for random access (workers are the parallelism), 0 = automatic.

    Raises:
        DatasetError: the file is missing or is no video.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        never_free_inherited_codecs()
        self.path = path
        try:
            self._container = av.open(str(path))
            self._stream = self._container.streams.video[0]
        except (av.FFmpegError, IndexError, OSError) as error:
            raise broken_video(path, error) from error
        self._stream.codec_context.thread_count = threads
        self._time_base = float(self._stream.time_base or 0)
        if not self._time_base:
            raise broken_video(path, ValueError("no time base"))
        self._rate = float(self._stream.average_rate or 1)
        self._keyframes: np.ndarray | None = None
        self._decoded: Iterator[av.VideoFrame] | None = None
        self._current: av.VideoFrame | None = None
        self._previous: av.VideoFrame | None = None
        # Kept across frames: it holds the conversion tables, costly to set up for small frames.
        self._reformatter = VideoReformatter()

    def frames_at(self, times: Sequence[float], tolerance_s: float) -> Iterator[np.ndarray]:
        """Yield the frame nearest to each time (s), uint8 (height, width, 3).

        Raises:
            DatasetError: no frame lies within the tolerance, or the file is damaged there.
        """
        for time in times:
            try:
                frame = self._nearest(time, tolerance_s)
                pixels = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
            except (av.FFmpegError, OSError) as error:
                self._decoded = None
                raise broken_video(self.path, error, time) from error
            yield pixels

    def _nearest(self, time: float, tolerance_s: float) -> av.VideoFrame:
        target = time / self._time_base
        # Times are float32 in the table: a frame may lie a little before or after its time.
        slack = min(tolerance_s, 0.25 / self._rate) / self._time_base
        if not self._can_continue(target, slack):
            self._seek(self._keyframe_before(target + slack))
        self._advance(target - slack)
        if (
            self._previous is None
            and self._current is not None
            and _pts(self._current) > (target + slack)
        ):
            self._seek(0)  # the keyframe index was off: rare files number their frames differently
            self._advance(target - slack)
        near = [frame for frame in (self._previous, self._current) if frame is not None]
        if not near:
            raise broken_video(self.path, ValueError("no frames"), time)
        best = min(near, key=lambda frame: abs(_pts(frame) - target))
        error_s = abs(_pts(best) - target) * self._time_base
        if error_s > tolerance_s:
            raise DatasetError(
                f"{self.path} has no frame at {time:.6f} s: the nearest is {error_s:.6f} s away, "
                f"allowed are {tolerance_s} s (tolerance_s). The video is shorter than the "
                "metadata "
                "say, cut off, or of another frame rate: fetch the dataset again or record it anew."
            )
        return best

    def _can_continue(self, target: float, slack: float) -> bool:
        if self._current is None or self._decoded is None:
            return False
        position = _pts(self._previous if self._previous is not None else self._current)
        return position <= target + slack and self._keyframe_before(target + slack) <= _pts(
            self._current
        )

    def _advance(self, lowest: float) -> None:
        """Decode until the current frame is at or after `lowest`, or the file ends."""
        assert self._decoded is not None
        while self._current is None or _pts(self._current) < lowest:
            frame = next(self._decoded, None)
            if frame is None:
                self._decoded = None  # the decoder was drained: only a seek revives it
                return
            self._previous, self._current = self._current, frame

    def _seek(self, pts: int) -> None:
        self._container.seek(pts, stream=self._stream, backward=True)
        self._decoded = self._container.decode(self._stream)
        self._previous = self._current = None

    def _keyframe_before(self, target: float) -> int:
        if self._keyframes is None:
            self._keyframes = self._find_keyframes()
        at = int(np.searchsorted(self._keyframes, target, side="right")) - 1
        return int(self._keyframes[max(at, 0)])

    def _find_keyframes(self) -> np.ndarray:
        entries = getattr(self._stream, "index_entries", None)
        if entries is not None and len(entries):
            # Entries carry decoding times; reordering shifts those by a constant.
            stamps = [(entry.timestamp, entry.is_keyframe) for entry in entries]
            shift = (self._stream.start_time or 0) - stamps[0][0]
            return np.array([stamp + shift for stamp, is_key in stamps if is_key] or [0])
        packets = self._container.demux(self._stream)
        return np.sort([p.pts for p in packets if p.is_keyframe and p.pts is not None] or [0])

    def close(self) -> None:
        """Close the file."""
        self._decoded = self._current = self._previous = None
        self._container.close()


class TorchcodecDecoder:
    """One open video file, read with torchcodec (an optional package)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            from torchcodec.decoders import VideoDecoder  # pyrefly: ignore[missing-import]
        except (ImportError, RuntimeError, OSError) as error:
            raise ConfigError(
                "--dataset.video_backend=torchcodec does not load here "
                f"({str(error).splitlines()[0]}); install torchcodec with its ffmpeg libraries or "
                "use --dataset.video_backend=pyav."
            ) from error
        try:
            self._decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, dimension_order="NHWC")
        except (RuntimeError, ValueError) as error:
            raise broken_video(path, error) from error

    def frames_at(self, times: Sequence[float], tolerance_s: float) -> Iterator[np.ndarray]:
        """Yield the frame nearest to each time (s), uint8 (height, width, 3)."""
        rate = self._decoder.metadata.average_fps
        last = self._decoder.metadata.num_frames - 1
        wanted = [min(round(time * rate), last) for time in times]
        try:
            batch = self._decoder.get_frames_at(wanted)
        except (RuntimeError, IndexError) as error:
            raise broken_video(self.path, error, times[0]) from error
        for time, pixels, pts in zip(times, batch.data, batch.pts_seconds.tolist(), strict=True):
            if abs(pts - time) > tolerance_s:
                raise DatasetError(
                    f"{self.path} has no frame at {time:.6f} s: the nearest is at {pts:.6f} s, "
                    f"allowed are {tolerance_s} s (tolerance_s); fetch the dataset again."
                )
            yield pixels.numpy()

    def close(self) -> None:
        """Let the file go."""
        del self._decoder


def _pts(frame: av.VideoFrame) -> int:
    return frame.pts if frame.pts is not None else 0


def broken_video(path: Path, error: Exception, time: float | None = None) -> DatasetError:
    """Return the error for a missing or damaged video; `time` (s) says where it shows."""
    if not path.is_file():
        return DatasetError(
            f"{path} is missing, although the dataset's meta names it; fetch the dataset again."
        )
    place = "" if time is None else f" at {time:.3f} s"
    return DatasetError(
        f"{path} cannot be decoded{place} ({type(error).__name__}: {error}); expected a whole mp4. "
        "Fetch the dataset again or record it anew."
    )


@cache
def never_free_inherited_codecs() -> None:
    """Keep the garbage collector of forked processes from freeing what the parent opened.

    Freeing a codec waits for its threads, which a fork does not copy: the child would hang.
    """
    os.register_at_fork(after_in_child=gc.freeze)


_ABANDONED: list[object] = []
"""Decoders inherited through fork: never used again and never freed, since freeing could wait for
threads that exist in the parent only."""


class DecoderCache:
    """Open decoders by file, the least recently used one closed first.

    Safe in worker processes: a copy that was pickled or forked starts empty.
    """

    def __init__(self, backend: str | None = None, size: int = 16) -> None:
        self._open: Callable[[Path], PyavDecoder | TorchcodecDecoder] = (
            TorchcodecDecoder if backend == "torchcodec" else PyavDecoder
        )
        self._size = max(1, size)
        self._decoders: OrderedDict[Path, PyavDecoder | TorchcodecDecoder] = OrderedDict()
        self._pid = os.getpid()

    def __getstate__(self) -> dict:
        return {"_open": self._open, "_size": self._size}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._decoders = OrderedDict()
        self._pid = os.getpid()

    def __len__(self) -> int:
        return len(self._decoders)

    def limit(self, size: int) -> None:
        """Keep at most so many files open from the next one on."""
        self._size = max(1, min(size, self._size))

    def get(self, path: Path) -> PyavDecoder | TorchcodecDecoder:
        """Return the decoder of a file, opening it when needed."""
        if self._pid != os.getpid():
            _ABANDONED.append(self._decoders)
            self._decoders, self._pid = OrderedDict(), os.getpid()
        if path in self._decoders:
            self._decoders.move_to_end(path)
            return self._decoders[path]
        while len(self._decoders) >= self._size:
            self._decoders.popitem(last=False)[1].close()
        self._decoders[path] = self._open(path)
        return self._decoders[path]
