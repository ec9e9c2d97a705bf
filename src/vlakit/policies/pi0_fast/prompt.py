# SPDX-License-Identifier: Apache-2.0
"""The prompt of pi0-FAST: the task in words, and the state as 256 numbered bins.

    Task: open the drawer, State: 118 10 255 -1;

and a newline. Source: openpi tokenizer.py (FASTTokenizer), LeRobot 0.6.1.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlakit.errors import ProcessingError
from vlakit.features import ACTION, OBS_STATE
from vlakit.policies.pi0_fast.action_tokens import TokenLayout
from vlakit.processing.step import Step

logger = logging.getLogger(__name__)

NUM_BINS = 256
WATCHED, MOST_OUTSIDE = 1000, 0.1
"""From this many values on, and above this share outside, a warning is due."""
_LEFT_EDGES = np.linspace(-1, 1, NUM_BINS + 1)[:-1]


def state_bins(state: NDArray[Any]) -> NDArray[np.int64]:
    """Return the bin of every number: 0 .. 255 cover [-1, 1], -1 is below, 255 is also above."""
    return np.digitize(state, _LEFT_EDGES) - 1


def clean_task(task: str, layout: TokenLayout) -> str:
    """Return the task as the two projects write it into the prompt.

    LeRobot keeps the case and makes newlines spaces; openpi writes small letters and keeps them.
    """
    if layout == "openpi":
        return task.lower().strip().replace("_", " ")
    return task.strip().replace("_", " ").replace("\n", " ")


def prompt_text(task: str, bins: Sequence[int] | NDArray[np.int64], layout: TokenLayout) -> str:
    """Return the prompt of one observation."""
    numbers = " ".join(str(number) for number in bins)
    return f"Task: {clean_task(task, layout)}, State: {numbers};\n"


class Prompt(Step):
    """Puts the prompt, made of task and scaled state, in the place of the task."""

    registry_name = "pi0_fast_prepare_state_tokenizer_processor_step"

    def __init__(
        self,
        max_state_dim: int = 32,
        task_key: str = "task",
        token_layout: TokenLayout = "lerobot",
    ) -> None:
        """Take where the task is and how it is written.

        Args:
            max_state_dim: not used, as in LeRobot.
            task_key: the batch's key.
            token_layout: how the task is cleaned; kept in the policy's `config.json`.
        """
        self.max_state_dim = max_state_dim
        self.task_key = task_key
        self.token_layout: TokenLayout = token_layout
        self._seen = self._outside = 0
        self._has_warned = False

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with a prompt per row.

        Raises:
            ProcessingError: state or tasks are missing, or do not fit each other.
        """
        state, tasks = batch.get(OBS_STATE), batch.get(self.task_key)
        if state is None or tasks is None:
            missing = OBS_STATE if state is None else self.task_key
            raise ProcessingError(
                f"the batch has no {missing!r}; pi0-FAST writes task and state into its prompt. "
                "Add it to the observation."
            )
        if len(tasks) != len(state):
            raise ProcessingError(
                f"the batch has {len(state)} states and {len(tasks)} tasks; expected as many."
            )
        values = _finite(state)
        if batch.get(ACTION) is None:  # training data is looked at before the run
            self._watch(values)
        bins = state_bins(values)
        prompts = [
            prompt_text(task, row, self.token_layout) for task, row in zip(tasks, bins, strict=True)
        ]
        return batch | {self.task_key: prompts}

    def _watch(self, values: NDArray[Any]) -> None:
        """Say once when rollouts or a robot give states that the bins do not tell apart."""
        self._seen += values.size
        self._outside += int(np.count_nonzero(np.abs(values) > 1))
        if self._has_warned or self._seen < WATCHED or self._outside <= MOST_OUTSIDE * self._seen:
            return
        self._has_warned = True
        logger.warning(
            "%.0f%% of the scaled state's values lie outside [-1, 1] and share the outer two of "
            "the prompt's %d bins: the policy hardly sees them. Is this the robot, and the "
            "normalisation, that it was trained with?",
            100 * self._outside / self._seen,
            NUM_BINS,
        )


def _finite(state: Tensor) -> NDArray[Any]:
    # Parity: float64 is not rounded first; numpy has no bfloat16.
    state = state.detach().cpu()
    values = (state.float() if state.dtype == torch.bfloat16 else state).numpy()
    rows = np.flatnonzero(~np.isfinite(values).all(axis=-1))
    if rows.size:
        raise ProcessingError(
            f"the state of row {rows[0]} is {values[rows[0]].tolist()}; expected finite numbers. "
            "Look at the robot's state, and at the statistics of the checkpoint."
        )
    return values
