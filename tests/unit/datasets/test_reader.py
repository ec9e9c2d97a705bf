# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from tests.unit.datasets.conftest import EPISODES, FPS, all_frames
from vlakit.datasets import LeRobotDataset
from vlakit.datasets.config import ImageTransformConfig, ImageTransformsConfig
from vlakit.datasets.image_transforms import ImageTransforms
from vlakit.datasets.reading.frames import load_frames
from vlakit.datasets.reading.versions import load_metadata
from vlakit.errors import ConfigError, DatasetError

TOP, WRIST = "observation.images.top", "observation.images.wrist"


def test_what_was_recorded_comes_back(recorded: Path) -> None:
    dataset = LeRobotDataset("me/toy", recorded)
    frames = all_frames()
    assert len(dataset) == len(frames) == dataset.meta.total_frames
    assert dataset.meta.tasks == ["pick", "place – überall"]
    for index, frame in enumerate(frames):
        item = dataset[index]
        assert (item["task"], item["note"]) == (frame["task"], frame["note"])
        for name in ("observation.state", "action", "grid"):
            np.testing.assert_array_equal(item[name].numpy(), frame[name])
        assert item["next.done"].dtype == torch.bool
        assert item["next.done"].item() == frame["next.done"]
        assert item["timestamp"].item() == pytest.approx(item["frame_index"].item() / FPS)
        wrist = (item[WRIST] * 255).round().byte().permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(wrist, frame[WRIST])
        top = item[TOP].permute(1, 2, 0).numpy() * 255
        # yuv420p halves the colours' resolution; crf 18 leaves little else.
        assert np.abs(top - frame[TOP].astype(float)).mean() < 6


def test_chosen_columns_are_read_alone(recorded: Path) -> None:
    metadata = load_metadata("me/toy", recorded)
    frames = load_frames(metadata, [0, 2], columns=["action"])
    assert set(frames.numeric) == {"action", "episode_index", "frame_index"}
    whole = load_frames(metadata, [0, 2])
    np.testing.assert_array_equal(frames.numeric["action"], whole.numeric["action"])
    assert not frames.text


def test_several_files_were_written_and_read(recorded: Path) -> None:
    assert len(list(recorded.glob("data/*/*.parquet"))) > 1
    assert len(list(recorded.glob("videos/*/*/*.mp4"))) > 1


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    indices=st.lists(st.integers(0, 33), min_size=1, max_size=6),
    deltas=st.lists(st.integers(-20, 20), min_size=2, max_size=5, unique=True),
)
def test_windows_repeat_the_border_and_say_so(
    recorded: Path, indices: list[int], deltas: list[int]
) -> None:
    times = [delta / FPS for delta in deltas]
    names = ("action", TOP, WRIST, "note")
    dataset = LeRobotDataset("me/toy", recorded, delta_timestamps=dict.fromkeys(names, times))
    plain = LeRobotDataset("me/toy", recorded)
    starts, ends = plain.frames.episode_bounds
    batch = dataset.get_batch(indices)
    for row, index in enumerate(indices):
        episode = int(plain.frames.position[index])
        wanted = [index + delta for delta in deltas]
        inside = [min(max(w, starts[episode]), ends[episode] - 1) for w in wanted]
        is_pad = [w != i for w, i in zip(wanted, inside, strict=True)]
        for name in names:
            assert batch[f"{name}_is_pad"][row].tolist() == is_pad
        for place, source in enumerate(inside):
            item = plain[int(source)]
            assert torch.equal(batch["action"][row, place], item["action"])
            assert torch.equal(batch[TOP][row, place], item[TOP])
            assert torch.equal(batch[WRIST][row, place], item[WRIST])
            assert batch["note"][row][place] == item["note"]


def test_a_video_window_of_one_frame_has_no_time_axis_as_in_the_reference(recorded: Path) -> None:
    one = {TOP: [0.0], WRIST: [0.0], "action": [0.0]}
    item = LeRobotDataset("me/toy", recorded, delta_timestamps=one)[3]
    assert (item[TOP].ndim, item[WRIST].ndim, item["action"].ndim) == (3, 4, 2)


def test_a_subset_of_episodes_reads_only_their_files(damaged: Path) -> None:
    whole = LeRobotDataset("me/toy", damaged)
    needed = whole.meta.files_of([1])
    unneeded = set(whole.meta.files_of(range(len(EPISODES)))) - set(needed)
    assert unneeded
    for path in unneeded:
        (damaged / path).unlink()
    subset = LeRobotDataset("me/toy", damaged, episodes=[1])
    assert (len(subset), subset.num_episodes) == (EPISODES[1][0], 1)
    assert subset[0]["index"].item() == EPISODES[0][0]
    assert subset[len(subset) - 1]["task"] == EPISODES[1][1]


def test_episodes_keep_the_order_of_the_files(recorded: Path) -> None:
    subset = LeRobotDataset("me/toy", recorded, episodes=[2, 0])
    assert subset[0]["episode_index"].item() == 0


def test_negative_and_foreign_indices(recorded: Path) -> None:
    dataset = LeRobotDataset("me/toy", recorded)
    assert dataset[-1]["index"].item() == len(dataset) - 1
    with pytest.raises(IndexError, match="index 34 of a dataset of 34 frames"):
        dataset[34]


# Python 3.12 warns of fork beside threads; torch's default context was fork until then.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_give_the_same_batches(recorded: Path, context: str) -> None:
    dataset = LeRobotDataset("me/toy", recorded, return_uint8=True)
    dataset[5]  # opens files before the workers are forked
    loader = DataLoader(dataset, batch_size=12, num_workers=1, multiprocessing_context=context)
    loaded = torch.cat([batch[TOP] for batch in loader])
    pictures = torch.cat([batch[WRIST] for batch in loader])
    assert torch.equal(loaded, dataset.get_batch(range(len(dataset)))[TOP])
    assert torch.equal(pictures, dataset.get_batch(range(len(dataset)))[WRIST])


def test_a_pickled_copy_reads_on_its_own(recorded: Path) -> None:
    dataset = LeRobotDataset("me/toy", recorded)
    dataset[0]
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(copy._decoders) == 0
    assert torch.equal(copy[7][TOP], dataset[7][TOP])
    assert copy.meta.stats.keys() == dataset.meta.stats.keys()


def test_cached_frames_are_equal_and_need_no_files(damaged: Path) -> None:
    plain = LeRobotDataset("me/toy", damaged).get_batch(range(34))
    cached = LeRobotDataset("me/toy", damaged, cache_frames=True)
    for path in damaged.rglob("*.mp4"):
        path.unlink()
    batch = cached.get_batch(range(34))
    assert torch.equal(batch[TOP], plain[TOP])
    assert torch.equal(batch[WRIST], plain[WRIST])


def test_a_cache_that_does_not_fit_is_refused(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlakit.datasets.reading.frame_cache.available_memory", lambda: 1000)
    with pytest.raises(
        DatasetError, match=r"needs 0\.00 GB for 34 frames of 2 cameras.*cache_frames"
    ):
        LeRobotDataset("me/toy", recorded, cache_frames=True)


def test_filling_the_cache_shows_progress(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = []
    monkeypatch.setattr(
        "rich.progress.Progress.advance", lambda self, bar, count: bars.append(count)
    )
    LeRobotDataset("me/toy", recorded, cache_frames=True)
    assert sum(bars) == 2 * 34


def test_image_transforms_are_applied_to_cameras_alone(recorded: Path) -> None:
    dark = ImageTransformConfig(type="ColorJitter", kwargs={"brightness": [0.0, 0.0]})
    config = ImageTransformsConfig(enable=True, tfs={"dark": dark})
    dataset = LeRobotDataset("me/toy", recorded, image_transforms=ImageTransforms(config))
    plain = LeRobotDataset("me/toy", recorded)
    assert dataset[4][TOP].max() == dataset[4][WRIST].max() == 0
    assert torch.equal(dataset[4]["action"], plain[4]["action"])
    foreign = LeRobotDataset("me/toy", recorded, image_transforms=lambda image: 1 - image)
    assert torch.equal(foreign[4][TOP], 1 - plain[4][TOP])


def test_decoders_stay_within_the_bound(recorded: Path) -> None:
    dataset = LeRobotDataset("me/toy", recorded, decoder_cache_size=1)
    dataset.get_batch(range(34))
    assert len(dataset._decoders) == 1


def test_unknown_backend_is_refused(recorded: Path) -> None:
    with pytest.raises(ConfigError, match="video_backend='opencv' is unknown; use pyav"):
        LeRobotDataset("me/toy", recorded, video_backend="opencv")


def test_torchcodec_that_does_not_load_names_the_way_out(recorded: Path) -> None:
    if importlib.util.find_spec("torchcodec") is not None:
        pytest.skip("torchcodec is installed")
    dataset = LeRobotDataset("me/toy", recorded, video_backend="torchcodec")
    with pytest.raises(ConfigError, match=r"video_backend=torchcodec does not load here.*pyav"):
        dataset[0]
