# SPDX-License-Identifier: Apache-2.0
"""Chunks of a dataset: whole windows of an episode for fitting, one per frame as a policy meets."""

from __future__ import annotations

import numpy as np
import pytest

from tests.arm_recording import arm_actions
from tests.unit.training.fast_tokenizer.conftest import Reader
from vlakit.errors import ConfigError, DatasetError
from vlakit.processing.fast.dct import dct_matrix

LENGTHS = (30, 24, 7, 40)


def test_windows_are_full_and_stay_inside_an_episode(read: Reader) -> None:
    data = read(action_horizon=8, normalization_mode="IDENTITY")
    expected = [
        arm_actions(episode, length)[start : start + 8]
        for episode, length in enumerate(LENGTHS)
        for start in range(length - 7)
    ]
    assert data.chunks.num_skipped == 1
    np.testing.assert_array_equal(data.sampled, np.stack(expected).astype(np.float64))


def test_a_policy_meets_one_chunk_per_frame_filled_up_with_the_last_action(read: Reader) -> None:
    data = read(action_horizon=8, normalization_mode="IDENTITY")
    rows = data.chunks.all_rows
    assert len(rows) == sum(LENGTHS)
    last = data.chunks.met(rows[29:30])[0]
    np.testing.assert_array_equal(last, np.repeat(arm_actions(0, 30)[-1:], 8, axis=0))
    whole = data.chunks.met(rows[30:31])[0]
    np.testing.assert_array_equal(whole, arm_actions(1, 24)[:8])


def test_a_share_of_every_episode_is_sampled_at_least_one_chunk(read: Reader) -> None:
    counts = [23, 17, 33]  # full windows of the episodes that have any
    assert len(read(action_horizon=8, sample_fraction=0.25).sampled) == 5 + 4 + 8
    assert len(read(action_horizon=8, sample_fraction=0.001).sampled) == 3
    assert len(read(action_horizon=8).sampled) == sum(counts)
    first, again = (read(action_horizon=8, sample_fraction=0.25).sampled for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_the_first_episodes_only(read: Reader) -> None:
    whole, two = read(action_horizon=8), read(action_horizon=8, max_episodes=2)
    assert len(two.sampled) == 23 + 17
    assert len(two.chunks.all_rows) == 30 + 24
    # Statistics stay those of the dataset, as the policy will have them.
    np.testing.assert_array_equal(two.sampled, whole.sampled[:40])


def test_chosen_dimensions_in_the_order_given(read: Reader) -> None:
    whole = read(action_horizon=8).sampled
    np.testing.assert_array_equal(
        read(action_horizon=8, encoded_dims="6:7,0:2").sampled, whole[:, :, [6, 0, 1]]
    )


def test_relative_dimensions_lose_the_state_at_the_start_of_the_chunk(read: Reader) -> None:
    relative = read(
        action_horizon=8,
        normalization_mode="IDENTITY",
        relative_dims="0,2",
        use_relative_transform=True,
        encoded_dims="2:4",
    )
    assert relative.dimensions.relative == [2]  # dimension 0 is not encoded
    actions = arm_actions(0, 30)
    expected = actions[3:11, 2:4] - np.array([actions[3, 2] / 2, 0], dtype=np.float32)
    np.testing.assert_array_equal(relative.sampled[3], expected)


def test_relative_chunks_are_scaled_by_their_own_statistics(read: Reader) -> None:
    flags = {"action_horizon": 8, "relative_dims": "0,2", "use_relative_transform": True}
    data = read(**flags, normalization_mode="MEAN_STD", max_episodes=2)
    whole = read(**flags, normalization_mode="MEAN_STD")
    np.testing.assert_allclose(whole.sampled.mean(axis=(0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose(whole.sampled.std(axis=(0, 1)), 1, atol=1e-6)
    # Of the whole dataset, whichever episodes are used.
    np.testing.assert_array_equal(data.sampled, whole.sampled[: len(data.sampled)])
    assert data.normalizer().stats == whole.normalizer().stats
    absolute = read(**flags, normalization_mode="MEAN_STD", reference=True)
    assert absolute.normalizer().stats["mean"] == read().normalizer().stats["mean"]


def test_quantile_modes_clip_for_fitting_and_say_how_much(read: Reader) -> None:
    data = read(action_horizon=8, normalization_mode="QUANTILE10")
    assert np.abs(data.sampled).max() == pytest.approx(1, abs=1e-6)
    raw = data.chunks.raw(data.chunks.sampled_rows(1))
    low, high = (data.actions.stats[name].astype(np.float32) for name in ("q10", "q90"))
    outside = ((raw < low) | (raw > high)).mean(axis=(0, 1))
    np.testing.assert_allclose(data.clipped_share, outside)
    assert 0 < data.clipped_share[0] < 0.4
    assert np.abs(data.chunks.met(data.chunks.all_rows)).max() > 1.01
    assert not read(normalization_mode="MEAN_STD").clipped_share.any()


def test_one_normalised_unit_in_the_robots_units(read: Reader) -> None:
    for mode, first, second, factor in (
        ("QUANTILES", "q01", "q99", 0.5),
        ("MIN_MAX", "min", "max", 0.5),
    ):
        data = read(normalization_mode=mode)
        stats = data.actions.stats
        np.testing.assert_allclose(
            data.chunks.unit, (stats[second] - stats[first]) * factor, rtol=1e-6
        )
    data = read(normalization_mode="MEAN_STD")
    np.testing.assert_allclose(data.chunks.unit, data.actions.stats["std"], rtol=1e-6)
    np.testing.assert_array_equal(read(normalization_mode="IDENTITY").chunks.unit, np.ones(7))


def test_the_lowest_coefficient_is_found_over_all_blocks(
    read: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlakit.training.fast_tokenizer.chunks.BLOCK_NUMBERS", 8 * 7 * 5)
    data = read(action_horizon=8)
    rows = data.chunks.all_rows
    coefficients = dct_matrix(8) @ data.chunks.met(rows)
    lowest = coefficients.min(axis=(1, 2))
    assert data.chunks.row_of_lowest_coefficient() == rows[lowest.argmin()]
    assert len(list(data.chunks.blocks(rows))) == -(-len(rows) // 5)


@pytest.mark.parametrize("dims", ["0:6,7:23", "0:8", "6:8"])
def test_dimensions_that_the_action_lacks_are_named(read: Reader, dims: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(encoded_dims=dims)
    message = str(caught.value)
    assert f"--encoded_dims={dims} reaches dimension" in message
    assert "has 7: 0 x, 1 y, 2 z, 3 roll, 4 pitch, 5 yaw, 6 gripper" in message
    assert "Give --encoded_dims=0:7 for all of them" in message


def test_relative_dimensions_beyond_the_action_are_named(read: Reader) -> None:
    with pytest.raises(ConfigError, match=r"names dimension 7, but 'action' of me/arm has 7"):
        read(relative_dims="0,7", use_relative_transform=True)


def test_no_episode_is_long_enough(read: Reader) -> None:
    with pytest.raises(DatasetError, match=r"the longest of 4 has 40 frames\. Give --action_h"):
        read(action_horizon=41)
