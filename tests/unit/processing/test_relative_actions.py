# SPDX-License-Identifier: Apache-2.0
"""Relative actions: what stays absolute, the inverse, and the state that a chunk belongs to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from vlakit.errors import ProcessingError
from vlakit.policies.base import Policy
from vlakit.processing.pipeline import Pipeline
from vlakit.processing.relative_actions import AbsoluteActions, RelativeActions, relative_dims

NAMES = ["x.pos", "y.pos", "Gripper.pos"]


def pair(**settings: Any) -> tuple[Pipeline, Pipeline]:
    before = Pipeline([RelativeActions(True, **settings)], "before")
    after = Pipeline([AbsoluteActions(True)], "after")
    after.link(before)
    return before, after


def observation(state: Tensor) -> dict[str, Any]:
    return {"observation.state": state, "task": ["a"] * len(state)}


@pytest.mark.parametrize(
    ("exclude", "names", "expected"),
    [
        (["gripper"], NAMES, [0, 1]),
        (["POS"], NAMES, []),
        ([""], NAMES, [0, 1, 2]),
        ([], NAMES, [0, 1, 2]),
        (["gripper"], None, [0, 1, 2]),
        (["gripper"], NAMES[2:], [1, 2]),
    ],
)
def test_dimensions_are_excluded_by_name(
    exclude: list[str], names: list[str] | None, expected: list[int]
) -> None:
    assert relative_dims(3, exclude, names) == expected


def test_training_subtracts_the_state_of_the_chunk_s_start() -> None:
    before, _ = pair(exclude_joints=["gripper"], action_names=NAMES)
    state, action = torch.randn(2, 4), torch.randn(2, 5, 3)
    result = before(observation(state) | {"action": action})["action"]
    assert torch.equal(result[..., :2], action[..., :2] - state[:, None, :2])
    assert torch.equal(result[..., 2], action[..., 2])


def test_the_inverse_adds_the_state_that_was_preprocessed_last() -> None:
    before, after = pair(exclude_joints=["gripper"], action_names=NAMES)
    state, action = torch.randn(2, 3), torch.randn(2, 5, 3)
    relative = before(observation(state) | {"action": action})["action"]
    before(observation(state))
    torch.testing.assert_close(after(relative), action)
    torch.testing.assert_close(after(relative[:, 0]), action[:, 0])


def test_training_batches_do_not_move_the_anchor() -> None:
    before, after = pair()
    before(observation(torch.ones(1, 3)))
    before(observation(torch.full((1, 3), 9.0)) | {"action": torch.zeros(1, 5, 3)})
    assert torch.equal(after(torch.zeros(1, 5, 3)), torch.ones(1, 5, 3))


class Planner(Policy):
    """Says chunks of 0, 1, 2: as far from the state as the step is late."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        super().__init__(None, 3)

    def predict_action_chunk(self, batch: Any, noise: Tensor | None = None) -> Tensor:
        return torch.arange(3.0)[None, :, None].expand(1, 3, 2)

    from_pretrained = from_backbone = forward = None  # type: ignore[assignment]


def test_queued_actions_stay_relative_to_the_state_they_were_predicted_from() -> None:
    before, after = pair()
    policy = Planner()
    said = []
    for state in (10.0, 20.0, 30.0, 40.0, 50.0):  # the robot moves between the actions
        batch = before(observation(torch.full((1, 2), state)))
        said.append(after(policy.select_action(batch))[0, 0].item())
    assert said == [10.0, 11.0, 12.0, 40.0, 41.0]
    policy.reset()
    batch = before(observation(torch.full((1, 2), 60.0)))
    assert after(policy.select_action(batch))[0, 0].item() == 60.0


def test_a_step_that_is_off_changes_nothing() -> None:
    before, after = Pipeline([RelativeActions()], "b"), Pipeline([AbsoluteActions()], "a")
    batch = before(observation(torch.ones(1, 3)) | {"action": torch.ones(1, 2, 3)})
    assert torch.equal(batch["action"], torch.ones(1, 2, 3))
    assert "action.anchor" not in before(observation(torch.ones(1, 3)))
    assert torch.equal(after(torch.ones(1, 2, 3)), torch.ones(1, 2, 3))


def test_what_cannot_be_relative_is_refused() -> None:
    before, after = pair()
    with pytest.raises(ProcessingError, match=r"no 'observation.state', which actions"):
        before({"task": ["a"], "action": torch.zeros(1, 2, 3)})
    with pytest.raises(ProcessingError, match=r"dimension 2 is relative .* only 2 dim"):
        before(observation(torch.zeros(1, 2)) | {"action": torch.zeros(1, 2, 3)})
    with pytest.raises(ProcessingError, match="relative to a state that is not known"):
        after(torch.zeros(1, 2, 3))
    before(observation(torch.zeros(2, 3)))
    with pytest.raises(ProcessingError, match="1 rows of actions are relative to 2 rows"):
        after(torch.zeros(1, 2, 3))
