# SPDX-License-Identifier: Apache-2.0
"""The order of training frames is LeRobot 0.6.1's (recorded from its EpisodeAwareSampler)."""

from __future__ import annotations

from itertools import islice

from vlakit.datasets.sampler import EpochSampler, epoch_order


def test_epoch_order_equals_the_references() -> None:
    first = [75, 15, 66, 53, 58, 41, 44, 26, 47, 54, 67, 28]
    second = [57, 40, 28, 70, 54, 76, 3, 59, 33, 15, 32, 72]
    assert epoch_order(77, seed=1000, epoch=0)[:12].tolist() == first
    assert epoch_order(77, seed=1000, epoch=1)[:12].tolist() == second


def test_a_resumed_epoch_ends_like_the_references() -> None:
    sampler = EpochSampler(77, seed=1000, batch_size=7, start_step=5 * 11 + 10)
    assert next(islice(sampler, 1)) == [46, 21, 74, 32, 22, 1, 48]
