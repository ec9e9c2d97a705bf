# SPDX-License-Identifier: Apache-2.0
"""Batches of a run, from any step on: order, reading, image changes, preprocessing.

Everything random here is a function of the seed and the step's number, never of a generator's
history, so a resumed run gets the batches it would have got, with any number of workers.

A policy on the CPU gets its batches ready-made from the workers. For one on a GPU the workers read
and turn text and actions into tokens, and the rest is done on the device: images travel as uint8,
are changed there, and become floats or patches there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from vlakit.datasets.config import ImageTransformsConfig
from vlakit.datasets.image_transforms import ImageTransforms
from vlakit.datasets.reader import LeRobotDataset
from vlakit.datasets.reading.worker_copy import SharedReader
from vlakit.errors import TrainingError, VlakitError
from vlakit.processing.pipeline import Pipeline
from vlakit.processing.rename import RenameObservations
from vlakit.training.config import TrainFlags
from vlakit.training.memory import memory_line, resident_memory
from vlakit.training.packed_batch import PackedBatch

Batch = dict[str, Any]
Numbered = tuple[int, Sequence[int]]
"""A step's number and the frames of its batch."""

IMAGE_STREAM = 1
"""Separates the random numbers of image changes from those of the order of samples."""
AHEAD = 2


class BatchReader(Dataset):
    """Reads the frames of one numbered batch and prepares them. Runs in the workers."""

    def __init__(
        self, dataset: LeRobotDataset, transforms: ImageTransformsConfig, seed: int
    ) -> None:
        self.dataset = dataset
        self.transforms_config = transforms
        self.seed = seed
        self.process: Callable[[Batch], Batch] | None = None
        """What is made of a batch before it leaves the worker."""
        self.changes_images = True
        """Whether images are changed here, and not on the device."""

    def preparing(self, process: Callable[[Batch], Batch], *, changes_images: bool) -> Self:
        """Return a reader of the same data that does more, or less, with a batch."""
        reader = type(self)(self.dataset, self.transforms_config, self.seed)
        reader.process, reader.changes_images = process, changes_images
        return reader

    @cached_property
    def transforms(self) -> ImageTransforms | None:
        """The image changes; made where they are used."""
        config = self.transforms_config
        return ImageTransforms(config) if config.enable else None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Numbered) -> Batch | PackedBatch | VlakitError:
        """Return the batch of a step: tensors (batch, ...), text as lists; packed by a worker.

        What is wrong with the data is returned, not raised: the loader would bury it in the
        worker's traceback.
        """
        try:
            batch = self._read(index)
        except VlakitError as error:
            return error
        return batch if get_worker_info() is None else PackedBatch(batch)

    def _read(self, index: Numbered) -> Batch:
        step, indices = index
        batch = self.dataset.get_batch(indices)
        if self.changes_images:
            batch = self.changed(step, batch, self.dataset.meta.camera_keys)
        return batch if self.process is None else self.process(batch)

    def changed(
        self, step: int, batch: Batch, cameras: Sequence[str], device: torch.device | None = None
    ) -> Batch:
        """Return the batch with its images changed as the seed and the step's number say.

        Args:
            step: Of the batch.
            batch: Images are uint8 (batch, 3, height, width).
            cameras: Their names in the batch, in the order of the dataset.
            device: Where to change them; where they are when None. The draws are the same
                everywhere; a pixel may come out one step (of 255) off where arithmetic rounds
                in another way.
        """
        if self.transforms is None:
            return batch
        generator = torch.Generator()
        generator.manual_seed(_seed_of(self.seed, IMAGE_STREAM, step))
        changed = dict(batch)
        for name in cameras:
            images = batch[name] if device is None else batch[name].to(device, non_blocking=True)
            changed[name] = self.transforms(images, generator)
        return changed


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
    preprocess: Pipeline,
    note: Callable[[str], None] | None = None,
) -> Iterator[Batch]:
    """Yield the preprocessed batch of every step from `first_step` on.

    Args:
        reader: Reads one batch.
        order: Frames of each batch, starting with that of `first_step`.
        flags: Workers and steps.
        first_step: Steps already done.
        preprocess: From a raw batch to what the policy takes. Runs in the workers up to where it
            needs the device; without workers, and from there on, in a thread, ahead of the run.
        note: Is told how much memory is in use, once the first batch is there.
    """
    device = preprocess.device
    on_device = device is not None and device.type != "cpu"
    process = preprocess.prepare if on_device else preprocess
    batches = loaded_batches(
        reader.preparing(process, changes_images=not on_device),
        NumberedBatches(order, first_step, flags.steps),
        flags,
    )
    if device is not None and on_device:
        batches = delivered(batches, reader, preprocess, device, first_step)
    return _noted(ahead(batches, AHEAD), note)


def delivered(
    prepared: Iterable[Batch],
    reader: BatchReader,
    preprocess: Pipeline,
    device: torch.device,
    first_step: int,
) -> Iterator[Batch]:
    """Yield prepared batches with their images changed, and the pipeline finished, on the device.

    Args:
        prepared: What `preprocess.prepare` made of the raw batches, from `first_step` on.
        reader: Which did not change images.
        preprocess: The pipeline.
        device: Where it delivers.
        first_step: Step of the first batch.
    """
    names = _processed_names(reader.dataset.meta.camera_keys, preprocess)
    for step, batch in enumerate(prepared, first_step):
        yield preprocess.deliver(reader.changed(step, batch, names, device))


def loaded_batches(
    reader: BatchReader, numbered: NumberedBatches, flags: TrainFlags
) -> Iterator[Batch]:
    """Yield what the reader makes of these batches, in its workers or, without them, here.

    Raises:
        VlakitError: As the reader raised it.
        TrainingError: A worker was killed.
    """
    num_workers = num_reading_workers(flags)
    loader = DataLoader(
        SharedReader(reader) if num_workers else reader,
        sampler=numbered,
        batch_size=None,
        num_workers=num_workers,
        prefetch_factor=flags.prefetch_factor if num_workers else None,
        multiprocessing_context=flags.dataloader_multiprocessing_context if num_workers else None,
        pin_memory=flags.policy is not None and str(flags.policy.device).startswith("cuda"),
        generator=torch.Generator(),  # the loader must not draw from the global generator
        worker_init_fn=_share_caches if num_workers else None,
    )
    return _checked(loader)


def _share_caches(worker: int) -> None:
    """Give this worker its share of what the caches of all may hold."""
    info = get_worker_info()
    assert info is not None
    shared = info.dataset
    assert isinstance(shared, SharedReader)
    shared.reader.dataset.limit_caches(info.num_workers)


def _processed_names(cameras: Sequence[str], preprocess: Pipeline) -> list[str]:
    """Return the names that the cameras have behind the pipeline's step that renames."""
    step = preprocess.find(RenameObservations.registry_name)
    renamed = step.rename_map if isinstance(step, RenameObservations) else {}
    return [renamed.get(name, name) for name in cameras]


def _noted(batches: Iterator[Batch], note: Callable[[str], None] | None) -> Iterator[Batch]:
    for number, batch in enumerate(batches):
        if number == 0 and note is not None:
            note(memory_line(resident_memory()))
        yield batch


def _checked(loader: Iterable[Batch | PackedBatch | VlakitError]) -> Iterator[Batch]:
    """Yield the batches of a loader; raise what its workers found wrong.

    Raises:
        VlakitError: As the worker raised it.
        TrainingError: A worker was killed.
    """
    try:
        for batch in loader:
            if isinstance(batch, VlakitError):
                raise batch
            yield batch.unpacked() if isinstance(batch, PackedBatch) else batch
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
