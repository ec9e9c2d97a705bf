# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from tests.unit.environments.toy import ToyEnvConfig
from vlakit.environments.messages import Message
from vlakit.environments.vector import VectorEnvironment
from vlakit.environments.worker_process import EnvironmentWorker
from vlakit.errors import SimulatorError

RESET = Message({"command": "reset", "seed": 3, "film": False})
STEP = Message({"command": "play", "film": False}, {"actions": np.full((1, 3), 0.5)})


@contextmanager
def worker_on(task: str, timeout_s: float = 60.0) -> Iterator[EnvironmentWorker]:
    worker = EnvironmentWorker(ToyEnvConfig(), timeout_s=timeout_s)
    try:
        worker.set_task(task)
        yield worker
    finally:
        worker.close()


def all_replies(envs: VectorEnvironment, count: int) -> dict[int, Any]:
    replies: dict[int, Any] = {}
    while len(replies) < count:
        replies |= envs.wait()
    return replies


def test_a_process_answers_as_the_environment_itself_does() -> None:
    replies = []
    for use_processes in (True, False):
        with VectorEnvironment(ToyEnvConfig(), num_envs=2, use_processes=use_processes) as envs:
            for slot in (0, 1):
                envs.reset(slot, "push", 5 + slot, film=slot == 1)
            first = all_replies(envs, 2)
            assert "film" in first[1].arrays
            assert "film" not in first[0].arrays
            for slot in (0, 1):
                envs.play(slot, np.full((4, 3), 0.7), film=slot == 1)
            second = all_replies(envs, 2)
            assert second[1].arrays["film"].shape[1:] == (8, 8, 3)
            replies.append([first[0], first[1], second[0], second[1]])
    for ours, theirs in zip(*replies, strict=True):
        assert ours.fields == theirs.fields
        assert ours.arrays.keys() == theirs.arrays.keys()
        for name in ours.arrays:
            np.testing.assert_array_equal(ours.arrays[name], theirs.arrays[name])


def test_a_worker_changes_its_task() -> None:
    with worker_on("push") as worker:
        worker.send(RESET)
        worker.receive()
        worker.set_task("fail")
        worker.send(RESET)
        worker.receive()
        worker.send(Message({"command": "play", "film": False}, {"actions": np.ones((30, 3))}))
        reply = worker.receive()
        assert not reply.arrays["successes"].any()
        assert len(reply.arrays["rewards"]) == 20
        assert reply.fields["done"]


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("crash", "ended with code 1.*RuntimeError: the point fell off the table"),
        ("exit", "ended with code 7.*last words of the toy"),
        ("missing", "ended with code 1.*simulator_of_dreams"),
        ("refuse", "the toy box is closed: open it"),
    ],
)
def test_a_worker_that_dies_says_why(task: str, words: str) -> None:
    with worker_on(task) as worker:
        worker.send(RESET)
        worker.send(STEP)
        with pytest.raises(SimulatorError, match=words):
            _ = [worker.receive(), worker.receive()]


def test_a_worker_that_hangs_is_given_up() -> None:
    with worker_on("hang") as worker:
        worker.send(RESET)
        worker.receive()
        worker._timeout_s = 0.2
        worker.send(STEP)
        with pytest.raises(SimulatorError, match=r"--env.task=hang gave no reply for 0.2 s"):
            worker.receive()


def test_a_chunk_ends_with_its_episode_and_counts_clipped_actions() -> None:
    with worker_on("push") as worker:
        worker.send(RESET)
        worker.receive()
        worker.send(Message({"command": "play", "film": False}, {"actions": np.full((50, 3), 5.0)}))
        reply = worker.receive()
        assert reply.fields["done"]
        assert reply.arrays["successes"].tolist()[-1]
        assert len(reply.arrays["rewards"]) < 6
        assert reply.fields["num_clipped"] == len(reply.arrays["rewards"])
        assert "observation.image" not in reply.arrays
