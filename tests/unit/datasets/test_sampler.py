# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import chain, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlakit.datasets.sampler import EpochSampler, split_episodes
from vlakit.errors import ConfigError, DatasetError


@given(frames=st.integers(1, 60), batch=st.integers(1, 12), epochs=st.integers(1, 3))
def test_every_epoch_uses_every_frame_once(frames: int, batch: int, epochs: int) -> None:
    sampler = EpochSampler(frames, seed=3, batch_size=batch)
    steps = list(islice(sampler, epochs * sampler.steps_per_epoch))
    for epoch in range(epochs):
        part = steps[epoch * sampler.steps_per_epoch : (epoch + 1) * sampler.steps_per_epoch]
        assert sorted(chain.from_iterable(part)) == list(range(frames))


@given(
    frames=st.integers(1, 40),
    batch=st.integers(1, 9),
    start=st.integers(0, 50),
    world=st.integers(1, 3),
)
def test_starting_late_gives_the_rest_of_the_same_order(
    frames: int, batch: int, start: int, world: int
) -> None:
    for rank in range(world):
        whole = EpochSampler(frames, 7, batch, world_size=world, rank=rank)
        late = EpochSampler(frames, 7, batch, start, world_size=world, rank=rank)
        assert list(islice(late, 5)) == list(islice(whole, start, start + 5))


def test_processes_share_an_epoch() -> None:
    ranks = [EpochSampler(16, 0, 2, world_size=4, rank=rank) for rank in range(4)]
    used = [frame for rank in ranks for batch in islice(rank, 2) for frame in batch]
    assert sorted(used) == list(range(16))


def test_without_shuffling_the_order_is_the_datasets() -> None:
    assert list(islice(EpochSampler(5, 0, 2, shuffle=False), 4)) == [[0, 1], [2, 3], [4], [0, 1]]


def test_epochs_and_seeds_differ() -> None:
    first, second = islice(EpochSampler(50, 1, 50), 2)
    other = next(iter(EpochSampler(50, 2, 50)))
    assert first != second
    assert first != other


def test_wrong_arguments() -> None:
    with pytest.raises(DatasetError, match=r"no frames to train on; check --dataset.episodes"):
        EpochSampler(0, 0, 1)
    with pytest.raises(ConfigError, match="--batch_size=0 must be 1 or more"):
        EpochSampler(3, 0, 0)
    with pytest.raises(ConfigError, match="expected a step from 0 and a rank below world_size"):
        EpochSampler(3, 0, 1, world_size=2, rank=2)


def test_split_takes_the_last_episodes_of_each_task() -> None:
    tasks = [["a"], ["b"], ["a"], ["b"], ["a"], ["a"], ["only"]]
    train, held = split_episodes(tasks, 0.3)
    assert held == [3, 4, 5]
    assert train == [0, 1, 2, 6]
    assert split_episodes(tasks, 0.0) == ([0, 1, 2, 3, 4, 5, 6], [])


def test_split_never_takes_the_only_episode_of_a_task() -> None:
    assert split_episodes([["a"], ["b"]], 0.9) == ([0, 1], [])
