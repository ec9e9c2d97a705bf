# SPDX-License-Identifier: Apache-2.0
"""Statistics of relative actions against a plain loop over all chunks."""

from __future__ import annotations

import numpy as np
import pytest

from vlakit.errors import DatasetError
from vlakit.training import relative_stats
from vlakit.training.relative_stats import relative_action_stats

EPISODES = (np.array([0, 12]), np.array([12, 30]))


def recording() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.normal(size=(30, 3)).astype(np.float32), random.normal(size=(30, 4))


def by_hand(actions: np.ndarray, states: np.ndarray, dims: list[int], size: int) -> np.ndarray:
    rows = []
    for first, last in zip(*EPISODES, strict=True):
        for start in range(first, last - size + 1):
            for step in range(size):
                row = actions[start + step].astype(np.float64)
                row[dims] -= states[start][dims]
                rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("dims", [[], [0, 2], [0, 1, 2]])
def test_all_chunks_inside_an_episode_count(dims: list[int]) -> None:
    actions, states = recording()
    before = actions.copy()
    stats = relative_action_stats(actions, states, EPISODES, dims, 5)
    expected = by_hand(actions, states, dims, 5)
    assert np.array_equal(actions, before)
    np.testing.assert_allclose(stats["mean"], expected.mean(0), atol=1e-6)
    np.testing.assert_allclose(stats["std"], expected.std(0), atol=1e-6)
    np.testing.assert_allclose(stats["q01"], np.quantile(expected, 0.01, axis=0), atol=1e-6)
    np.testing.assert_allclose(stats["max"], expected.max(0), atol=1e-6)


def test_many_chunks_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relative_stats, "MOST_NUMBERS", 5 * 3 * 10)
    stats = relative_action_stats(*recording(), EPISODES, [0], 5)
    assert stats["count"].item() == 10 * 5


def test_too_short_episodes_and_narrow_states_are_refused() -> None:
    actions, states = recording()
    with pytest.raises(DatasetError, match=r"no episode is as long .*chunk_size=19"):
        relative_action_stats(actions, states, EPISODES, [0], 19)
    with pytest.raises(DatasetError, match=r"dimension 2 is .*only 2 dimensions"):
        relative_action_stats(actions, states[:, :2], EPISODES, [0, 2], 5)
