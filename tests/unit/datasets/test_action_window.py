# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from vlakit.datasets.action_window import chunk_delta_timestamps, frame_offsets, window_rows


def test_a_chunk_starts_now_and_steps_by_frames() -> None:
    assert chunk_delta_timestamps(4, 10) == [0.0, 0.1, 0.2, 0.3]


@pytest.mark.parametrize("fps", [10, 15, 30, 50, 29.97])
def test_times_of_a_chunk_are_whole_frames(fps: float) -> None:
    times = chunk_delta_timestamps(100, fps)
    offsets = frame_offsets({"action": times}, {"action": {}}, fps, 1e-4)
    assert offsets["action"].tolist() == list(range(100))


def test_windows_are_clamped_to_the_episode() -> None:
    rows, is_pad = window_rows(
        np.array([4, 11]), np.array([0, 5]), np.array([5, 12]), np.array([-5, 0, 1])
    )
    assert rows.tolist() == [[0, 4, 4], [6, 11, 11]]
    assert is_pad.tolist() == [[True, False, True], [False, False, True]]
