# SPDX-License-Identifier: Apache-2.0
"""The order of training frames: a function of (seed, epoch), so that it can be entered anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

import numpy as np
import torch

from vlakit.errors import ConfigError, DatasetError


def epoch_order(num_frames: int, seed: int, epoch: int) -> np.ndarray:
    """Return the frames of one epoch in training order, int64 (num_frames,).

    Source: lerobot/datasets/sampler.py@0.6.1: torch.randperm seeded from numpy SeedSequence([seed,
        epoch]).
    """
    state = int(np.random.SeedSequence([seed, epoch]).generate_state(1, dtype=np.uint64)[0])
    # torch wants a signed 64-bit seed or an unsigned one; both are taken as the same bits.
    generator = torch.Generator().manual_seed(state)
    return torch.randperm(num_frames, generator=generator).numpy()


class EpochSampler:
    """Batches of frame indices for one process, without end, starting at any step.

    Every epoch is a fresh permutation, cut into batches of `batch_size`; the last one may be
    shorter. Process `rank` of `world_size` takes every `world_size`-th batch; when the batches do
    not come out even, the epoch's first ones are used again.

    Args:
        num_frames: frames of the dataset.
        seed: of the order.
        batch_size: frames per process and step.
        start_step: steps already done (resume): the first batch is the one after them.
        world_size: processes that share each step.
        rank: number of this process.
        shuffle: False keeps the dataset's order.
    """

    def __init__(
        self,
        num_frames: int,
        seed: int,
        batch_size: int,
        start_step: int = 0,
        *,
        world_size: int = 1,
        rank: int = 0,
        shuffle: bool = True,
    ) -> None:
        if num_frames < 1:
            raise DatasetError("the dataset has no frames to train on; check --dataset.episodes.")
        if batch_size < 1:
            raise ConfigError(f"--batch_size={batch_size} must be 1 or more.")
        if start_step < 0 or not 0 <= rank < world_size:
            raise ConfigError(
                f"start_step={start_step}, rank={rank}, world_size={world_size}: expected a step "
                "from 0 and a rank below world_size."
            )
        self.num_frames, self.seed, self.batch_size = num_frames, seed, batch_size
        self.step = start_step
        self._world_size, self._rank, self._shuffle = world_size, rank, shuffle

    @property
    def steps_per_epoch(self) -> int:
        """Steps until every frame was used once."""
        return ceil(ceil(self.num_frames / self.batch_size) / self._world_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield batches from `step` on; the sampler itself is not changed."""
        epoch, within = divmod(self.step, self.steps_per_epoch)
        while True:
            order = self._order(epoch)
            batches = ceil(self.num_frames / self.batch_size)
            for step in range(within, self.steps_per_epoch):
                batch = (step * self._world_size + self._rank) % batches
                yield order[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()
            epoch, within = epoch + 1, 0

    def _order(self, epoch: int) -> np.ndarray:
        if self._shuffle:
            return epoch_order(self.num_frames, self.seed, epoch)
        return np.arange(self.num_frames)


def split_episodes(tasks: Sequence[Sequence[str]], share: float) -> tuple[list[int], list[int]]:
    """Hold out the last episodes of each task: ceil(number * share), but never a task's only one.

    Args:
        tasks: instructions of each episode; the first one groups it.
        share: in [0, 1).

    Returns:
        Episodes to train on and episodes held out, ascending. Differs from LeRobot, which takes all
        episodes of a task that has a single one out of training.
    """
    groups: dict[str, list[int]] = {}
    for episode, names in enumerate(tasks):
        groups.setdefault(names[0] if names else "", []).append(episode)
    held: set[int] = set()
    if share > 0:
        for members in groups.values():
            count = min(ceil(len(members) * share), len(members) - 1)
            held.update(members[len(members) - count :])
    train = [episode for episode in range(len(tasks)) if episode not in held]
    return train, sorted(held)
