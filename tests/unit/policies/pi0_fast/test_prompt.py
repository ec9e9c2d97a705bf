# SPDX-License-Identifier: Apache-2.0
"""The prompt: state bins, the two ways of cleaning a task, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from vlakit.errors import ProcessingError
from vlakit.policies.pi0_fast.prompt import Prompt, clean_task, prompt_text, state_bins


def test_bins_cover_minus_one_to_one_and_what_lies_outside() -> None:
    below = np.nextafter(-1.0, -2.0)
    state = np.array([-7.0, below, -1.0, -1 + 2 / 256, 0.0, 1 - 2 / 256, 1.0, 9.0])
    assert state_bins(state).tolist() == [-1, -1, 0, 1, 128, 255, 255, 255]


def test_a_state_in_float64_is_not_rounded_first() -> None:
    """LeRobot compares in the type of the state: here float32 would round up to the next bin."""
    just_below = torch.tensor([[-1 + 3 / 128 - 1e-12]], dtype=torch.float64)
    for state, number in ((just_below, 2), (just_below.float(), 3), (just_below.bfloat16(), 3)):
        prompt = Prompt()({"observation.state": state, "task": ["a"]})["task"]
        assert prompt == [f"Task: a, State: {number};\n"]


def test_every_bin_holds_its_own_middle() -> None:
    middles = -1 + (np.arange(256) + 0.5) / 128
    assert state_bins(middles).tolist() == list(range(256))


def test_the_two_layouts_clean_a_task_in_their_own_way() -> None:
    task = "  Open_the drawer\nnow "
    assert clean_task(task, "lerobot") == "Open the drawer now"
    assert clean_task(task, "openpi") == "open the drawer\nnow"
    assert prompt_text("Go_on", [3, -1], "lerobot") == "Task: Go on, State: 3 -1;\n"
    assert prompt_text("Go_on", [3, -1], "openpi") == "Task: go on, State: 3 -1;\n"


def test_the_step_replaces_the_task_and_leaves_the_state() -> None:
    state = torch.tensor([[-1.5, 0.0], [1.0, -1.0]])
    batch = {"observation.state": state, "task": ["a", "b"]}
    result = Prompt()(batch)
    assert result["task"] == ["Task: a, State: -1 128;\n", "Task: b, State: 255 0;\n"]
    assert result["observation.state"] is state
    assert batch["task"] == ["a", "b"]


def test_states_outside_the_bins_are_said_once_at_inference(
    caplog: pytest.LogCaptureFixture,
) -> None:
    step = Prompt()
    state = torch.linspace(-2, 2, 200).reshape(100, 2)
    batch = {"observation.state": state, "task": ["a"] * 100}
    for _ in range(8):
        step(batch | {"action": torch.zeros(100, 1, 1)})
        Prompt()(batch | {"observation.state": state / 2})
    assert not caplog.records
    for _ in range(8):
        step(batch)
    assert [record.getMessage()[:29] for record in caplog.records] == [
        "50% of the scaled state's val"
    ]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"task": ["a"]}, "no 'observation.state'"),
        ({"observation.state": torch.zeros(1, 2)}, "no 'task'"),
        ({"observation.state": torch.zeros(2, 2), "task": ["a"]}, "2 states and 1 tasks"),
        (
            {"observation.state": torch.tensor([[0.0], [torch.nan]]), "task": ["a", "b"]},
            "state of row 1 is .nan.",
        ),
    ],
)
def test_what_gives_no_prompt_is_refused(batch: dict[str, Any], message: str) -> None:
    with pytest.raises(ProcessingError, match=message):
        Prompt()(batch)
