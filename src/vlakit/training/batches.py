# SPDX-License-Identifier: Apache-2.0
"""Batches of a run, from any step on: order, reading, image changes, preprocessing.

Everything random here is a function of the seed and the step's number, never of a generator's
history, so a resumed run gets the batches it would have got, with any number of workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from vlakit.datasets.config import ImageTransformsConfig
from vlakit.datasets.image_transforms import ImageTransforms
from vlakit.datasets.reader import LeRobotDataset
from vlakit.errors import TrainingError, VlakitError
from vlakit.training.config import TrainFlags

Batch = dict[str, Any]
Numbered = tuple[int, Sequence[int]]
"""A step's number and the frames of its batch."""

IMAGE_STREAM = 1
"""Separates the random numbers of image changes from those of the order of samples."""
AHEAD = 2


class BatchReader(Dataset):
    """Reads the frames of one numbered batch and changes its images. Runs in the workers."""

    def __init__(
        self, dataset: LeRobotDataset, transforms: ImageTransformsConfig, seed: int
    ) -> None:
        self.dataset = dataset
        self.transforms_config = transforms
        self.seed = seed

    @cached_property
    def transforms(self) -> ImageTransforms | None:
        """The image changes; made where they are used, as they do not travel between processes."""
        config = self.transforms_config
        return ImageTransforms(config) if config.enable else None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Numbered) -> Batch | VlakitError:
        """Return the batch of a step: tensors (batch, ...), text as lists.

        What is wrong with the data is returned, not raised: the loader would bury it in the
        worker's traceback.
        """
        try:
            return self._read(index)
        except VlakitError as error:
            return error

    def _read(self, index: Numbered) -> Batch:
        step, indices = index
        batch = self.dataset.get_batch(indices)
        if self.transforms is None:
            return batch
        generator = torch.Generator()
        generator.manual_seed(_seed_of(self.seed, IMAGE_STREAM, step))
        for name in self.dataset.meta.camera_keys:
            batch[name] = self.transforms(batch[name], generator)
        return batch


def _seed_of(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


class NumberedBatches(Sampler):
    """Gives (step, frames of its batch) to the loader, from `first_step` to the last."""

    def __init__(self, order: Iterable[Sequence[int]], first_step: int, num_steps: int) -> None:
        self.order = order
        self.first_step, self.num_steps = first_step, num_steps

    def __len__(self) -> int:
        return self.num_steps - self.first_step

    def __iter__(self) -> Iterator[Numbered]:
        yield from zip(range(self.first_step, self.num_steps), self.order, strict=False)


def training_batches(
    reader: BatchReader,
    order: Iterable[Sequence[int]],
    flags: TrainFlags,
    *,
    first_step: int,
    preprocess: Callable[[Batch], Batch],
) -> Iterator[Batch]:
    """Yield the preprocessed batch of every step from `first_step` on.

    Args:
        reader: Reads one batch.
        order: Frames of each batch, starting with that of `first_step`.
        flags: Workers and steps.
        first_step: Steps already done.
        preprocess: From a raw batch to what the policy takes; runs in a thread, one batch ahead.
    """
    num_workers = num_reading_workers(flags)
    loader = DataLoader(
        reader,
        sampler=NumberedBatches(order, first_step, flags.steps),
        batch_size=None,
        num_workers=num_workers,
        prefetch_factor=flags.prefetch_factor if num_workers else None,
        multiprocessing_context=flags.dataloader_multiprocessing_context if num_workers else None,
        pin_memory=flags.policy is not None and str(flags.policy.device).startswith("cuda"),
        generator=torch.Generator(),  # the loader must not draw from the global generator
    )
    return ahead(map(preprocess, _checked(loader)), AHEAD)


def _checked(loader: Iterable[Batch | VlakitError]) -> Iterator[Batch]:
    """Yield the batches of a loader; raise what its workers found wrong.

    Raises:
        VlakitError: As the worker raised it.
        TrainingError: A worker was killed.
    """
    try:
        for batch in loader:
            if isinstance(batch, VlakitError):
                raise batch
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"a process that reads data died ({str(error).splitlines()[0]}); as a rule the memory "
            "did not suffice. Lower --num_workers, --prefetch_factor or --batch_size; "
            "--num_workers=0 shows other causes."
        ) from error


def num_reading_workers(flags: TrainFlags) -> int:
    """Return how many processes read: none when all frames are in memory, where they only cost."""
    return 0 if flags.dataset.cache_frames else flags.num_workers


def ahead(batches: Iterator[Batch], depth: int) -> Iterator[Batch]:
    """Yield from `batches`, made up to `depth` ahead by a thread; its errors are raised here."""
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
    try:
        pending = deque(pool.submit(next, batches, None) for _ in range(depth))
        while (batch := pending.popleft().result()) is not None:
            pending.append(pool.submit(next, batches, None))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)


def evaluation_batches(
    dataset: LeRobotDataset, batch_size: int, max_samples: int
) -> Iterator[Batch]:
    """Yield raw batches that cover a held-out dataset, or `max_samples` frames spread over it."""
    indices = np.arange(len(dataset))
    if 0 < max_samples < len(indices):
        indices = np.unique(np.linspace(0, len(indices) - 1, max_samples).round().astype(int))
    for start in range(0, len(indices), batch_size):
        yield dataset.get_batch(indices[start : start + batch_size].tolist())
