# SPDX-License-Identifier: Apache-2.0
"""What data workers do and send: the same batches as without them, whichever half they do."""

from __future__ import annotations

import dataclasses
import mmap
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tests.fixtures_root import FIXTURE_ROOT
from vlakit.datasets.config import DatasetConfig, ImageTransformsConfig
from vlakit.datasets.reading.image_column import IMAGE_BUDGET
from vlakit.datasets.reading.worker_copy import SharedReader
from vlakit.errors import DatasetError, ProcessingError, VlakitError
from vlakit.policies.config import PolicyConfig
from vlakit.policies.eo1 import EO1Config
from vlakit.policies.pi0_fast import PI0FastConfig
from vlakit.processing.fast.tokenizer import FastTokenizer
from vlakit.processing.pipeline import Pipeline
from vlakit.training import setup
from vlakit.training.batches import (
    BatchReader,
    _processed_names,
    delivered,
    training_batches,
)
from vlakit.training.config import TrainFlags
from vlakit.training.memory import memory_line, resident_memory
from vlakit.training.packed_batch import SMALL, PackedBatch

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

ROOT = FIXTURE_ROOT / "dataset" / "v3.0"
CHANGES = ImageTransformsConfig(enable=True)
ORDER = [[3, 17, 40], [0, 5, 3], [22, 21, 20]]


def eo1(folder: Path) -> PolicyConfig:
    return EO1Config(
        vlm_base="tiny-qwen2.5-vl",
        image_min_pixels=56 * 56,
        image_max_pixels=112 * 56,
        chunk_size=4,
        n_action_steps=4,
        device="cpu",
        push_to_hub=False,
    )


def pi0_fast(folder: Path) -> PolicyConfig:
    chunks = np.random.default_rng(0).uniform(-1, 1, (60, 4, 7))
    FastTokenizer.train(chunks, vocab_size=300).save_pretrained(folder)
    return PI0FastConfig(
        paligemma_variant="tiny",
        action_tokenizer_name=str(folder),
        chunk_size=4,
        n_action_steps=4,
        max_action_tokens=256,
        tokenizer_max_length=300,
        device="cpu",
        push_to_hub=False,
    )


POLICIES = {"eo1": eo1, "pi0_fast": pi0_fast}


class Run:
    """What `training_batches` takes."""

    def __init__(
        self, config: PolicyConfig, root: Path = ROOT, device: str = "cpu", **flags: Any
    ) -> None:
        dataset = DatasetConfig(repo_id="local/three", root=str(root), image_transforms=CHANGES)
        self.flags = TrainFlags(dataset=dataset, policy=config, steps=len(ORDER), **flags)
        self.data = setup.open_data(self.flags, chunk_size=4)
        config = setup.fit_config(config, self.data.features, torch.device(device))
        self.preprocess, _ = setup.processors_for(config, self.data.stats, {}, resume=False)
        self.reader = BatchReader(self.data.train, CHANGES, seed=7)

    def batches(self, first_step: int = 0, **kwargs: Any) -> Iterator[dict[str, Any]]:
        order = ORDER[first_step:]
        return training_batches(
            self.reader,
            order,
            self.flags,
            first_step=first_step,
            preprocess=self.preprocess,
            **kwargs,
        )


@pytest.fixture(params=list(POLICIES))
def config(request: pytest.FixtureRequest, tmp_path: Path) -> PolicyConfig:
    return POLICIES[request.param](tmp_path / "fast")


def assert_equal(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        if isinstance(expected, Tensor):
            assert ours[name].dtype == expected.dtype, name
            assert torch.equal(ours[name], expected), name
        else:
            assert ours[name] == expected, name


def test_the_two_halves_of_a_pipeline_make_the_whole(config: PolicyConfig) -> None:
    run = Run(config)
    raw = run.data.train.get_batch(ORDER[0])
    prepared = pickle.loads(pickle.dumps(run.preprocess)).prepare(raw)
    # Tokens are made in the worker, and pixels travel as they were stored.
    assert {"input_ids", "action.tokens"} & prepared.keys()
    assert "pixel_values" not in prepared
    cameras = run.data.train.meta.camera_keys
    assert all(prepared[name].dtype == torch.uint8 for name in cameras)
    assert_equal(run.preprocess.deliver(prepared), run.preprocess(raw))


def test_images_may_be_changed_before_or_between_the_halves(config: PolicyConfig) -> None:
    run = Run(config)
    cameras = run.data.train.meta.camera_keys
    raw = run.data.train.get_batch(ORDER[0])
    before = run.preprocess(run.reader.changed(5, raw, cameras))
    prepared = [run.preprocess.prepare(raw)] * 2
    cpu = torch.device("cpu")
    _, between = delivered(prepared, run.reader, run.preprocess, cpu, first_step=4)
    assert_equal(between, before)
    other = run.preprocess(run.reader.changed(6, raw, cameras))
    assert not torch.equal(other[cameras[0]], before[cameras[0]])


def test_renamed_cameras_are_changed_under_their_new_names(tmp_path: Path) -> None:
    run = Run(eo1(tmp_path))
    cameras = run.data.train.meta.camera_keys
    renames = {cameras[0]: "observation.images.other"}
    features = setup.rename_keys(run.data.features, renames)
    config = setup.fit_config(eo1(tmp_path), features, torch.device("cpu"))
    preprocess, _ = setup.processors_for(config, run.data.stats, renames, resume=False)
    names = _processed_names(cameras, preprocess)
    assert names == ["observation.images.other", *cameras[1:]]
    assert set(names) <= preprocess.prepare(run.data.train.get_batch([0])).keys()


def test_workers_give_the_batches_of_one_process(config: PolicyConfig) -> None:
    alone = list(Run(config, num_workers=0).batches())
    notes: list[str] = []
    run = Run(config, num_workers=2)
    together = list(run.batches(note=notes.append))
    assert len(alone) == len(together) == len(ORDER)
    for ours, theirs in zip(together, alone, strict=True):
        assert_equal(ours, theirs)
    resumed = next(Run(config, num_workers=0).batches(first_step=2))
    assert_equal(resumed, alone[2])
    assert len(notes) == 1
    assert "MB resident, data workers" in notes[0]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_the_device_does_is_left_to_it(config: PolicyConfig, num_workers: int) -> None:
    """With torch's device without values: all is delivered there, in the CPU's shapes and types."""
    expected = next(Run(config, num_workers=0).batches())
    batch = next(Run(config, device="meta", num_workers=num_workers).batches())
    assert batch.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, Tensor):
            assert batch[name].is_meta, name
            assert (batch[name].shape, batch[name].dtype) == (value.shape, value.dtype), name


@pytest.mark.gpu
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_gpu_gets_the_batches_of_the_cpu(config: PolicyConfig, num_workers: int) -> None:
    expected = list(Run(config, num_workers=0).batches())
    on_gpu = dataclasses.replace(config, device="cuda")
    run = Run(on_gpu, device="cuda", num_workers=num_workers)
    for ours, theirs in zip(run.batches(), expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            if not isinstance(value, Tensor):
                continue
            assert ours[name].is_cuda, name
            error = (ours[name].cpu().double() - value.double()).abs()
            if value.dtype == torch.uint8:  # changed on the device, which may round another way
                assert error.max() <= 1, name
                assert error.mean() < 0.01, name
            elif name == "pixel_values":
                assert error.mean() < 0.01, name
            else:
                assert error.max() == 0, name


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_is_wrong_comes_back_as_it_is(tmp_path: Path, num_workers: int) -> None:
    root = Path(shutil.copytree(ROOT, tmp_path / "data"))
    run = Run(eo1(tmp_path), root, num_workers=num_workers)
    for path in (root / "videos").rglob("*.mp4"):
        path.write_bytes(b"no video")
    with pytest.raises(DatasetError, match="cannot be decoded"):
        next(run.batches())


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_a_policy_cannot_take_comes_back_as_it_is(tmp_path: Path, num_workers: int) -> None:
    run = Run(pi0_fast(tmp_path / "fast"), num_workers=num_workers)
    run.preprocess.find("tokenizer_processor").max_length = 5  # type: ignore[union-attr]
    with pytest.raises(ProcessingError, match=r"--policy.tokenizer_max_length=5"):
        next(run.batches())


def is_mapped(values: np.ndarray) -> bool:
    base: Any = values
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, memoryview) and isinstance(base.obj, mmap.mmap)


class Columns(Dataset):
    """An array, and what a worker finds of it."""

    def __init__(self) -> None:
        self.values = np.arange(1000)
        self.words = ["a", "b"]

    def __getitem__(self, index: int) -> tuple[bool, int, list[str]]:
        found, first = is_mapped(self.values), int(self.values[index])
        self.values[index] = -1
        return found, first, self.words

    def __len__(self) -> int:
        return 4


def test_workers_map_the_arrays_of_the_reader() -> None:
    columns = Columns()
    loader = DataLoader(
        SharedReader(columns), batch_size=None, num_workers=1, multiprocessing_context="spawn"
    )
    items = list(loader)
    assert items == [[True, index, ["a", "b"]] for index in range(4)]
    assert columns.values[0] == 0  # what a worker writes stays with it


def test_a_shared_reader_can_be_copied_here() -> None:
    copy = pickle.loads(pickle.dumps(SharedReader(Columns())))
    assert copy[3] == (False, 3, ["a", "b"])


def big_batch() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "pixels": torch.randint(0, 256, (3, SMALL), dtype=torch.uint8, generator=generator),
        "state": torch.randn(3, 5, generator=generator),
        "task": ["a", "b", "c"],
        "odd": torch.randint(0, 2, (SMALL + 3,), generator=generator).bool(),
        "floats": torch.randn(3, SMALL, generator=generator).transpose(0, 1),
        "half": torch.randn(4, generator=generator).to(torch.bfloat16),
        "none": None,
        "empty": torch.empty(0, 3),
        "mask": torch.tensor([True, False]),
        "number": torch.tensor(3),
    }


class Packed(Dataset):
    def __getitem__(self, index: int) -> PackedBatch:
        return PackedBatch(big_batch())

    def __len__(self) -> int:
        return 2


def test_a_packed_batch_comes_out_as_it_went_in() -> None:
    before = resident_memory()
    loader = DataLoader(Packed(), batch_size=None, num_workers=1, multiprocessing_context="spawn")
    for number, packed in enumerate(loader):
        if number == 0:
            check_memory(before)
        batch = packed.unpacked()
        assert list(batch) == list(big_batch())
        assert_equal(batch, big_batch())
        large = [batch[name] for name in ("pixels", "odd", "floats")]
        storages = {value.untyped_storage().data_ptr() for value in large}
        assert len(storages) == 1
        batch["state"].add_(1)  # and it may be written to


def test_errors_survive_the_way_from_a_worker() -> None:
    from vlakit.errors import ActionDecodeError

    error = pickle.loads(pickle.dumps(ActionDecodeError("rows fail", {3: "odd"})))
    assert isinstance(error, VlakitError)
    assert error.failures == {3: "odd"}


def test_caches_of_all_workers_stay_within_one_bound(tmp_path: Path) -> None:
    dataset = Run(eo1(tmp_path)).data.train
    dataset.limit_caches(4)
    columns = dataset.frames.images.values()
    assert sum(column.budget for column in columns) <= IMAGE_BUDGET // 4
    assert dataset._decoders._size == 16
    dataset.limit_caches(32)
    assert dataset._decoders._size == 2


def check_memory(before: dict[str, float]) -> None:
    """The process that was started since is counted."""
    assert before["memory_mb"] > 50
    memory = resident_memory()
    more = memory["workers_memory_mb"] - before.get("workers_memory_mb", 0)
    assert more > 50  # torch alone takes that
    assert 0 < memory["workers_own_memory_mb"] < memory["workers_memory_mb"]
    assert f"{memory['memory_mb']:,.0f} MB resident, data workers" in memory_line(memory)


def test_a_pipeline_may_lack_a_device() -> None:
    assert Pipeline([], "empty").prepare({"task": ["a"]})["task"] == ["a"]
