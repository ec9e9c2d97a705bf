# SPDX-License-Identifier: Apache-2.0
"""Batches: order, randomness that depends on the step alone, and the thread that works ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from vlakit.errors import DatasetError
from vlakit.training.batches import NumberedBatches, _seed_of, ahead


def test_batches_are_numbered_from_the_step_resumed() -> None:
    order = iter([[5], [6], [7], [8]])
    assert list(NumberedBatches(order, 3, 6)) == [(3, [5]), (4, [6]), (5, [7])]


def test_seeds_differ_by_step_and_are_the_same_again() -> None:
    seeds = {_seed_of(1000, 1, step) for step in range(100)}
    assert len(seeds) == 100
    assert _seed_of(1000, 1, 7) in seeds
    assert _seed_of(1001, 1, 7) not in seeds


def test_working_ahead_keeps_the_order() -> None:
    assert list(ahead(iter([{"a": 1}, {"a": 2}, {"a": 3}]), 2)) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_an_error_of_the_thread_is_raised_where_the_batch_is_taken() -> None:
    def broken() -> Iterator[dict[str, int]]:
        yield {"a": 1}
        raise DatasetError("frame 3 is damaged")

    batches = ahead(broken(), 2)
    assert next(batches) == {"a": 1}
    with pytest.raises(DatasetError, match="frame 3 is damaged"):
        next(batches)


def test_leaving_early_stops_the_thread() -> None:
    def endless() -> Iterator[dict[str, int]]:
        while True:
            yield {}

    batches = ahead(endless(), 2)
    next(batches)
    batches.close()
    deadline = time.monotonic() + 5
    while any(thread.name == "batches" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
