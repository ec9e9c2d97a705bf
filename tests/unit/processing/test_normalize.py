# SPDX-License-Identifier: Apache-2.0
"""What differs from the reference on purpose: near-constant dimensions and missing statistics."""

from __future__ import annotations

import logging

import pytest
import torch

from vlakit.errors import CheckpointError, ProcessingError
from vlakit.processing.normalize import Normalizer, Unnormalizer

FEATURES = {"action": {"type": "ACTION", "shape": [3]}}
# Dimension 0 moves, 1 is constant but for rounding noise, 2 is a gripper that seldom opens.
STATS = {
    "action": {
        "min": [-1.0, 0.5, 0.0],
        "max": [1.0, 0.5, 1.0],
        "q01": [-0.9, 0.5, 0.0],
        "q99": [0.9, 0.5 + 1e-15, 0.0],
        "q10": [-0.8, 0.5, 0.0],
        "q90": [0.8, 0.5, 0.0],
        "mean": [0.0, 0.5, 0.01],
        "std": [0.6, 1e-4, 0.1],
    }
}
ACTION = torch.tensor([[0.3, 0.5 + 1e-6, 1.0]])


def normalizer(mode: str, **settings: object) -> Normalizer:
    return Normalizer(FEATURES, {"ACTION": mode}, STATS, **settings)


@pytest.mark.parametrize("mode", ["MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10"])
def test_a_near_constant_dimension_stays_small_and_comes_back(mode: str) -> None:
    scaled = normalizer(mode)({"action": ACTION})["action"]
    assert scaled.abs().max() < 20
    back = Unnormalizer(FEATURES, {"ACTION": mode}, STATS)({"action": scaled})["action"]
    torch.testing.assert_close(back, ACTION, rtol=0, atol=1e-6)


def test_a_seldom_gripper_is_scaled_by_its_full_range() -> None:
    scaled = normalizer("QUANTILES")({"action": ACTION})["action"]
    assert scaled[0, 2] == 1.0
    assert normalizer("QUANTILES").near_constant() == {"action": [1, 2]}


def test_rounding_noise_in_std_does_not_hide_a_constant() -> None:
    assert normalizer("MEAN_STD").near_constant() == {"action": [1]}


def test_the_reference_would_have_exploded() -> None:
    scaled = normalizer("QUANTILES", floor="reference")({"action": ACTION})["action"]
    assert scaled.abs().max() > 1e6


def test_near_constant_dimensions_are_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    step = normalizer("MIN_MAX")
    with caplog.at_level(logging.WARNING):
        step.check({})
        step.check({})
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["near-constant dimensions, scaled by a floored range: action [1]"]


def test_a_missing_statistic_names_feature_statistic_and_remedy() -> None:
    stats = {"action": {"mean": [0.0] * 3, "std": [1.0] * 3}}
    step = Normalizer(FEATURES, {"ACTION": "QUANTILES"}, stats)
    with pytest.raises(
        ProcessingError, match=r"'action'.*QUANTILES.*'q01'.*\['mean', 'std'\].*rec"
    ):
        step.check({})


def test_a_batch_of_another_robot_is_refused() -> None:
    with pytest.raises(ProcessingError, match="'action' has 7 dimensions, its statistics have 3"):
        normalizer("MEAN_STD")({"action": torch.zeros(2, 7)})


def test_an_absent_action_stays_absent() -> None:
    assert normalizer("MEAN_STD")({"action": None}) == {"action": None}


def test_state_tensors_make_the_same_step_again() -> None:
    first = normalizer("MEAN_STD")
    second = Normalizer(**first.config())
    second.load_state(first.state())
    assert second.state().keys() == first.state().keys()
    batch = {"action": ACTION}
    assert torch.equal(first(batch)["action"], second(batch)["action"])


def test_a_foreign_state_file_is_refused() -> None:
    with pytest.raises(CheckpointError, match="'weight' of a normaliser's state file"):
        normalizer("MEAN_STD").load_state({"weight": torch.zeros(1)})


def test_a_camera_that_does_not_exist_needs_no_statistics() -> None:
    """LeRobot scales only what a batch holds, and no batch holds an empty camera."""
    empty = {"observation.images.empty_camera_0": {"type": "VISUAL", "shape": [3, 8, 8]}}
    step = Normalizer(FEATURES | empty, {"ACTION": "MIN_MAX", "VISUAL": "MIN_MAX"}, STATS)
    step.check({})
    assert step.near_constant() == {"action": [1]}
    other = {"observation.images.top": {"type": "VISUAL", "shape": [3, 8, 8]}}
    step = Normalizer(FEATURES | other, {"ACTION": "MIN_MAX", "VISUAL": "MIN_MAX"}, STATS)
    with pytest.raises(ProcessingError, match=r"'observation\.images\.top' is scaled by MIN_MAX"):
        step.check({})
