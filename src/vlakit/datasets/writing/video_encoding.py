# SPDX-License-Identifier: Apache-2.0
"""Encode clips with PyAV and join them, packet by packet, into one mp4 per camera."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vlakit.datasets.reading.video import never_free_inherited_codecs
from vlakit.datasets.writing.watched_thread import SignsOfLife, run_watched
from vlakit.errors import DatasetError, did_you_mean

ENCODERS = {"libsvtav1": "av1", "h264": "h264", "hevc": "hevc"}
"""Names for `vcodec` and the codec that players see."""

_LIBRARY = {"libsvtav1": "libsvtav1", "h264": "libx264", "hevc": "libx265"}
# No reordered frames: clips of any length then join without gaps in their decoding times, and at a
# keyframe distance of 2 reordering would save nothing.
_EXTRA = {
    "h264": {"bf": "0"},
    "hevc": {"x265-params": "bframes=0:log-level=none"},
}
# SVT-AV1 prints its settings for every clip unless told otherwise, and takes orders from here only.
_SVT_ERRORS_ONLY = {"SVT_LOG": "1"}


@dataclass(frozen=True, kw_only=True)
class VideoEncoding:
    """How a camera is encoded; defaults are LeRobot's.

    Attributes:
        vcodec: libsvtav1, h264 or hevc.
        g: a frame that stands alone every g frames; small is fast to enter anywhere.
        crf: quality, lower is better and larger.
        preset: encoder's own name for speed; None: 12 for libsvtav1, the library's default else.
    """

    vcodec: str = "libsvtav1"
    pix_fmt: str = "yuv420p"
    g: int = 2
    crf: int = 30
    preset: str | int | None = None

    def __post_init__(self) -> None:
        if self.vcodec not in ENCODERS:
            raise DatasetError(
                f"vcodec={self.vcodec!r} is unknown; expected one of {', '.join(ENCODERS)}."
                f"{did_you_mean(self.vcodec, ENCODERS)}"
            )

    @classmethod
    def from_features(
        cls, features: Mapping[str, Mapping[str, Any]], preset: str | int | None = None
    ) -> VideoEncoding:
        """Return how the cameras of an existing dataset were encoded, with another preset if given.

        Raises:
            DatasetError: the codec is none that this module writes.
        """
        blocks = (entry.get("info") for entry in features.values() if entry["dtype"] == "video")
        block = next(blocks, None) or {}
        codec = block.get("video.codec", "av1")
        return cls(
            vcodec={codec: name for name, codec in ENCODERS.items()}.get(codec, codec),
            g=block.get("video.g") or 2,
            crf=block.get("video.crf") or 30,
            preset=preset if preset is not None else block.get("video.preset"),
        )

    @property
    def used_preset(self) -> str | int | None:
        return 12 if self.preset is None and self.vcodec == "libsvtav1" else self.preset

    def options(self) -> dict[str, str]:
        """Return the encoder's options."""
        options = {"g": str(self.g), "crf": str(self.crf), **_EXTRA.get(self.vcodec, {})}
        if self.used_preset is not None:
            options["preset"] = str(self.used_preset)
        return options

    def info(self, height: int, width: int, fps: int | float) -> dict[str, Any]:
        """Return the `info` block of the camera's feature in `info.json`."""
        return {
            "video.height": height,
            "video.width": width,
            "video.codec": ENCODERS[self.vcodec],
            "video.pix_fmt": self.pix_fmt,
            "video.fps": fps,
            "video.channels": 3,
            "has_audio": False,
            "video.g": self.g,
            "video.crf": self.crf,
            "video.preset": self.used_preset,
            "video.fast_decode": 0,
            "video.video_backend": "pyav",
            "video.extra_options": {},
            "is_depth_map": False,
        }


def encode_clip(
    frames: Callable[[], Iterable[np.ndarray]],
    fps: int | float,
    encoding: VideoEncoding,
    threads: int = 0,
) -> bytes:
    """Return an mp4 of the frames.

    The encoder runs in a thread of its own: SVT-AV1 (3.1 and later) can lock up at the end of a
    clip (seen twice in some ten thousand), which is then encoded again. For root it also makes the
    thread that calls it, and whatever that starts later, real-time: that stays in there too.

    Args:
        frames: begins the clip: uint8 (height, width, 3), at least one frame.
        fps: frames per second.
        encoding: codec and quality.
        threads: encoder threads, 0 = automatic.

    Raises:
        DatasetError: the encoder is missing, locks up again and again, or refuses the frames (an
            odd size, as a rule).
    """
    never_free_inherited_codecs()
    for name, value in _SVT_ERRORS_ONLY.items():
        os.environ.setdefault(name, value)
    return run_watched(
        lambda signs: _encode(frames(), fps, encoding, threads, signs),
        name=f"encoding a clip with vcodec={encoding.vcodec}",
        advice="the encoder locks up again and again: use another vcodec (h264)",
    )


def _encode(
    frames: Iterable[np.ndarray],
    fps: int | float,
    encoding: VideoEncoding,
    threads: int,
    signs: SignsOfLife,
) -> bytes:
    buffer = io.BytesIO()
    reformatter = VideoReformatter()
    rate = Fraction(fps).limit_denominator(1001)
    library = _LIBRARY[encoding.vcodec]
    stream: Any = None
    try:
        with av.open(buffer, "w", format="mp4") as container:
            for number, pixels in enumerate(frames):
                if stream is None:
                    options = encoding.options()
                    added: Any = container.add_stream(library, rate=rate, options=options)
                    stream = added
                    stream.height, stream.width = pixels.shape[:2]
                    stream.pix_fmt = encoding.pix_fmt
                    stream.codec_context.thread_count = threads
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame = reformatter.reformat(frame, format=encoding.pix_fmt)
                frame.pts, frame.time_base = number, 1 / rate
                container.mux(stream.encode(frame))
                signs.moved()
            for packet in stream.codec_context.encode_lazy(None):
                packet.stream = stream
                container.mux(packet)
                signs.moved()
    except (av.FFmpegError, ValueError) as error:
        size = f"{stream.width}x{stream.height}" if stream is not None else "unknown size"
        raise DatasetError(
            f"encoding a {size} clip with vcodec={encoding.vcodec} failed ({error}); both sides "
            "must be even for yuv420p. Change the camera's size, the vcodec, or store dtype "
            "'image'."
        ) from error
    return buffer.getvalue()


class ClipJoiner:
    """An mp4 file that grows by whole clips, without encoding them again.

    The file has its name only once it is closed; until then it is `<name>.part`.

    Args:
        path: the file to make.
        fps: frames per second of every clip.
    """

    def __init__(self, path: Path, fps: int | float) -> None:
        self.path = path
        self.size = 0
        """Bytes of the clips so far."""
        self.num_frames = 0
        self._rate = Fraction(fps).limit_denominator(1001)
        self._part = path.with_name(path.name + ".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(
            str(self._part), "w", format="mp4", options={"movflags": "faststart"}
        )
        self._stream: Any = None

    def append(self, clip: bytes, num_frames: int) -> None:
        """Add one clip of this many frames behind the others."""
        with av.open(io.BytesIO(clip), "r") as source:
            video = source.streams.video[0]
            assert video.time_base is not None
            if self._stream is None:
                self._stream = self._container.add_stream_from_template(video, opaque=True)
                self._stream.time_base = video.time_base
            shift = int(self.num_frames / self._rate / video.time_base)
            for packet in source.demux(video):
                if packet.dts is None:  # the marker at the end of the file
                    continue
                packet.pts, packet.dts = (packet.pts or 0) + shift, packet.dts + shift
                packet.stream = self._stream
                self._container.mux(packet)
        self.num_frames += num_frames
        self.size += len(clip)

    def close(self) -> None:
        """Finish the file and give it its name."""
        self._container.close()
        os.replace(self._part, self.path)

    def abort(self) -> None:
        """Throw the file away."""
        self._container.close()
        self._part.unlink(missing_ok=True)
