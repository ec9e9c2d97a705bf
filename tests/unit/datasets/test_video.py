# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlakit.datasets.reading.video import DecoderCache, PyavDecoder
from vlakit.datasets.writing.video_encoding import ClipJoiner, VideoEncoding, encode_clip
from vlakit.errors import DatasetError

FPS, LENGTH = 20, 40
LEVELS = 20 + 5 * np.arange(LENGTH)  # one grey level per frame: a frame tells its number


def grey_clip(levels: np.ndarray, **settings: object) -> bytes:
    frames = [np.full((32, 48, 3), level, np.uint8) for level in levels]
    encoding = VideoEncoding(**{"vcodec": "h264", "crf": 10, **settings})  # type: ignore[arg-type]
    return encode_clip(lambda: frames, FPS, encoding, threads=1)


def numbers(decoder: PyavDecoder, wanted: list[int]) -> list[int]:
    frames = decoder.frames_at([index / FPS for index in wanted], 1e-4)
    return [int(np.abs(LEVELS - frame.mean()).argmin()) for frame in frames]


@pytest.fixture(scope="module", params=[1, 2, 12, 250])
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of three clips, with keyframes at several distances."""
    path = tmp_path_factory.mktemp("video") / "all.mp4"
    joiner = ClipJoiner(path, FPS)
    for part in np.split(LEVELS, [11, 12]):
        joiner.append(grey_clip(part, g=request.param), len(part))
    joiner.close()
    return path


def test_reordered_frames_of_foreign_files_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"h264": {"bf": "3", "b_strategy": "0", "x264-params": "scenecut=0"}}
    monkeypatch.setattr("vlakit.datasets.writing.video_encoding._EXTRA", options)
    path = tmp_path / "a.mp4"
    path.write_bytes(grey_clip(LEVELS, g=12))
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        assert [p.pts for p in packets] != sorted(p.pts for p in packets if p.pts is not None)
    wanted = [39, 0, 12, 11, 13, 24, 23, 5, 6, 7, 30, 38]
    assert numbers(PyavDecoder(path), wanted) == wanted


@settings(max_examples=40, deadline=None)
@given(wanted=st.lists(st.integers(0, LENGTH - 1), min_size=1, max_size=8))
def test_any_order_of_times_gives_the_right_frames(video: Path, wanted: list[int]) -> None:
    decoder = PyavDecoder(video)
    assert numbers(decoder, wanted) == wanted
    assert numbers(decoder, sorted(wanted)) == sorted(wanted)
    decoder.close()


def test_a_time_between_frames_is_an_error_unless_tolerated(video: Path) -> None:
    decoder = PyavDecoder(video)
    with pytest.raises(DatasetError, match=r"no frame at 0\.512000 s: the nearest is 0\.012000 s"):
        list(decoder.frames_at([0.512], 1e-4))
    frame = next(decoder.frames_at([0.512], 0.013))
    assert np.abs(LEVELS - frame.mean()).argmin() == 10
    frame = next(decoder.frames_at([0.538], 0.2))  # the nearest, although both are within reach
    assert np.abs(LEVELS - frame.mean()).argmin() == 11


def test_a_time_after_the_end_is_an_error_and_the_decoder_goes_on(video: Path) -> None:
    decoder = PyavDecoder(video)
    with pytest.raises(DatasetError, match=r"no frame at 2\.000000 s: .* 0\.050000 s away"):
        list(decoder.frames_at([LENGTH / FPS], 1e-4))
    assert numbers(decoder, [3, 39, 39, 0]) == [3, 39, 39, 0]


def test_joined_clips_keep_exact_times(video: Path) -> None:
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        times = sorted(float(p.pts * stream.time_base) for p in container.demux(stream) if p.size)
    np.testing.assert_allclose(times, np.arange(LENGTH) / FPS, atol=1e-9)


def test_a_file_is_named_only_when_whole(tmp_path: Path) -> None:
    joiner = ClipJoiner(tmp_path / "a.mp4", FPS)
    joiner.append(grey_clip(LEVELS[:3]), 3)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4.part"]
    joiner.abort()
    assert not list(tmp_path.iterdir())


def test_the_cache_closes_the_least_recently_used(tmp_path: Path) -> None:
    clip = grey_clip(LEVELS[:3])
    paths = [tmp_path / f"{number}.mp4" for number in range(3)]
    for path in paths:
        path.write_bytes(clip)
    cache = DecoderCache(size=2)
    first, second = cache.get(paths[0]), cache.get(paths[1])
    assert cache.get(paths[0]) is first
    cache.get(paths[2])
    assert len(cache) == 2
    assert cache.get(paths[0]) is first
    assert cache.get(paths[1]) is not second


def test_a_forked_process_opens_its_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(grey_clip(LEVELS[:3]))
    cache = DecoderCache()
    parent = cache.get(path)
    real = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: real + 1)
    assert cache.get(path) is not parent
    assert numbers(parent, [1]) == [1]  # still whole: never closed behind the parent's back


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_never_frees_the_parents_codecs(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(grey_clip(LEVELS[:3]))
    circle = [PyavDecoder(path, threads=2)]
    circle.append(circle)  # only the collector can free it
    assert numbers(circle[0], [1]) == [1]
    del circle
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # it hung for ever
        gc.collect()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_odd_size_names_the_way_out() -> None:
    frames = [np.zeros((31, 48, 3), np.uint8)]
    with pytest.raises(
        DatasetError, match=r"48x31 clip with vcodec=h264 failed .* even for yuv420p"
    ):
        encode_clip(lambda: frames, FPS, VideoEncoding(vcodec="h264"))
