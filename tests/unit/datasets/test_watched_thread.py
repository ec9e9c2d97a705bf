# SPDX-License-Identifier: Apache-2.0
"""Work that stops for ever, as SVT-AV1 sometimes does at the end of a clip."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from vlakit.datasets.writing import watched_thread
from vlakit.datasets.writing.video_encoding import VideoEncoding, encode_clip
from vlakit.datasets.writing.watched_thread import AbandonedError, SignsOfLife, run_watched
from vlakit.errors import DatasetError

NEVER = threading.Event()


@pytest.fixture(autouse=True)
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_thread, "SILENCE_LIMIT_S", 0.3)


def test_work_that_stops_is_begun_again_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    attempts: list[SignsOfLife] = []

    def work(signs: SignsOfLife) -> str:
        attempts.append(signs)
        if len(attempts) < 3:
            NEVER.wait()
        return f"attempt {len(attempts)}"

    assert run_watched(work, "thinking", "sleep") == "attempt 3"
    for late in attempts[:2]:
        with pytest.raises(AbandonedError):
            late.moved()
    assert "thinking stood still for 0 s (attempt 2 of 3)" in caplog.text


def test_work_that_always_stops_is_an_error() -> None:
    with pytest.raises(DatasetError, match=r"thinking stood still 3 times; sleep\."):
        run_watched(lambda signs: NEVER.wait(), "thinking", "sleep")


def test_slow_work_with_signs_of_life_is_left_alone() -> None:
    starts = []

    def work(signs: SignsOfLife) -> int:
        starts.append(signs)
        for _ in range(10):
            threading.Event().wait(0.1)
            signs.moved()
        return len(starts)

    assert run_watched(work, "walking", "") == 1


def test_errors_come_through_and_no_thread_stays() -> None:
    threads = threading.active_count()

    def work(signs: SignsOfLife) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run_watched(work, "writing", "")
    assert threading.active_count() == threads


def test_a_program_ends_though_work_of_its_own_never_does() -> None:
    program = (
        "import threading\n"
        "from vlakit.datasets.writing import watched_thread as w\n"
        "w.SILENCE_LIMIT_S = 0.1\n"
        "try: w.run_watched(lambda signs: threading.Event().wait(), 'it', 'rest')\n"
        "except w.DatasetError: print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "refused\n")


def test_a_clip_whose_first_attempt_stops_has_all_its_frames() -> None:
    frames = [np.full((32, 48, 3), level, np.uint8) for level in (30, 120, 210)]
    encoding = VideoEncoding(vcodec="h264")
    starts = 0

    def clip() -> Iterator[np.ndarray]:
        nonlocal starts
        starts += 1
        yield frames[0]
        if starts == 1:
            NEVER.wait()
        yield from frames[1:]

    assert encode_clip(clip, 20, encoding) == encode_clip(lambda: frames, 20, encoding)
    assert starts == 2


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="Linux only")
def test_the_av1_encoder_leaves_the_caller_s_priority_alone() -> None:
    frames = [np.zeros((64, 64, 3), np.uint8)] * 3
    encode_clip(lambda: frames, 20, VideoEncoding())
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
