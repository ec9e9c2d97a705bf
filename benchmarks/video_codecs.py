# SPDX-License-Identifier: Apache-2.0
"""Which codec should small simulator cameras use? Speed both ways, size and error.

    python benchmarks/video_codecs.py [--size 84 --length 90 --clips 4]

Prints one line of JSON per codec. The clips are a square that moves over a still background with a
little noise, so that no encoder is idle. One thread.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from harness.timing import circumstances

from vlakit.datasets.reading.video import PyavDecoder
from vlakit.datasets.writing.video_encoding import ClipJoiner, VideoEncoding, encode_clip

FPS = 20
ENCODINGS = {
    "libsvtav1 crf30 preset12 (LeRobot's default)": VideoEncoding(),
    "h264 crf30 medium": VideoEncoding(vcodec="h264"),
    "h264 crf23 veryfast": VideoEncoding(vcodec="h264", crf=23, preset="veryfast"),
    "h264 crf18 veryfast": VideoEncoding(vcodec="h264", crf=18, preset="veryfast"),
    "h264 crf18 ultrafast": VideoEncoding(vcodec="h264", crf=18, preset="ultrafast"),
}


def make_clip(size: int, length: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    background = np.stack([100 + 60 * np.sin(x / 9), 120 + 50 * np.cos(y / 7), (x + y) % 200], -1)
    frames = np.repeat(background[None], length, axis=0)
    side = size // 6
    for number in range(length):
        top = int((size - side) * (0.5 + 0.45 * np.sin(number / 15 + seed)))
        left = int((size - side) * (0.5 + 0.45 * np.cos(number / 11)))
        frames[number, top : top + side, left : left + side] = [200, 30, 40]
    return np.clip(frames + random.normal(0, 2, frames.shape), 0, 255).astype(np.uint8)


def measure(name: str, encoding: VideoEncoding, clips: list[np.ndarray], folder: Path) -> dict:
    started = time.perf_counter()
    encoded = [encode_clip(partial(iter, clip), FPS, encoding, threads=1) for clip in clips]
    encode_s = time.perf_counter() - started
    path = folder / f"{len(list(folder.iterdir()))}.mp4"
    joiner = ClipJoiner(path, FPS)
    for clip, frames in zip(encoded, clips, strict=True):
        joiner.append(clip, len(frames))
    joiner.close()
    frames = np.concatenate(clips)
    decoder = PyavDecoder(path)
    order = np.random.default_rng(1).permutation(len(frames))[:256]
    started = time.perf_counter()
    decoded = list(decoder.frames_at((order / FPS).tolist(), 1e-4))
    random_s = time.perf_counter() - started
    error = np.abs(np.stack(decoded).astype(int) - frames[order]).mean()
    batches = np.sort(order.reshape(-1, 64), axis=1)
    started = time.perf_counter()
    for batch in batches:
        list(decoder.frames_at((batch / FPS).tolist(), 1e-4))
    sorted_s = time.perf_counter() - started
    started = time.perf_counter()
    list(decoder.frames_at((np.arange(len(frames)) / FPS).tolist(), 1e-4))
    return {
        "encoding": name,
        "size": clips[0].shape[1],
        "encode_ms_per_frame": round(1000 * encode_s / len(frames), 3),
        "kb_per_frame": round(path.stat().st_size / len(frames) / 1024, 3),
        "random_decode_ms_per_frame": round(1000 * random_s / len(order), 3),
        "sorted_batch64_decode_ms_per_frame": round(1000 * sorted_s / len(order), 3),
        "sequential_decode_ms_per_frame": round(
            1000 * (time.perf_counter() - started) / len(frames), 3
        ),
        "mean_abs_error": round(float(error), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, nargs="*", default=[84, 128])
    parser.add_argument("--length", type=int, default=90)
    parser.add_argument("--clips", type=int, default=4)
    flags = parser.parse_args()
    for size in flags.size:
        clips = [make_clip(size, flags.length, seed) for seed in range(flags.clips)]
        for name, encoding in ENCODINGS.items():
            with tempfile.TemporaryDirectory() as folder:
                line = measure(name, encoding, clips, Path(folder))
                print(json.dumps(line | circumstances()), flush=True)


if __name__ == "__main__":
    main()
