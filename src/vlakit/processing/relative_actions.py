# SPDX-License-Identifier: Apache-2.0
"""Actions relative to the state, and back: relative = action - state, for chosen dimensions.

A predicted chunk must be added to the state it was predicted from, also when it is executed one
action at a time and newer states have come in since. So the state is kept in an *anchor*, which
travels with the batch: whoever hands out the chunk's actions sets it back to the chunk's own state
before each of them (`vlakit.policies.base.Policy.select_action`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vlakit.errors import ProcessingError
from vlakit.features import ACTION, ACTION_ANCHOR, OBS_STATE
from vlakit.processing.step import Step


@dataclass
class Anchor:
    """The state that the next actions to come out are relative to."""

    state: Tensor | None = None
    """(batch, state_dim), in the robot's units."""


def relative_dims(
    action_dim: int, exclude_joints: Sequence[str], action_names: Sequence[str] | None
) -> list[int]:
    """Return the dimensions that are made relative.

    Args:
        action_dim: width of the action.
        exclude_joints: a dimension stays absolute when its name contains one of these, in any case.
        action_names: names of the dimensions; without them, all are relative.
    """
    words = [str(word).lower() for word in exclude_joints if word]
    names = [str(name).lower() for name in (action_names or [])[:action_dim]]
    absolute = {dim for dim, name in enumerate(names) if any(word in name for word in words)}
    return [dim for dim in range(action_dim) if dim not in absolute]


class RelativeActions(Step):
    """Subtracts the current state from the actions, before they are scaled."""

    registry_name = "relative_actions_processor"

    def __init__(
        self,
        enabled: bool = False,
        exclude_joints: Sequence[str] = (),
        action_names: Sequence[str] | None = None,
    ) -> None:
        """Take which dimensions stay absolute; see `relative_dims`."""
        self.enabled = enabled
        self.exclude_joints = list(exclude_joints)
        self.action_names = None if action_names is None else list(action_names)
        self.anchor = Anchor()

    def config(self) -> dict[str, Any]:
        return {
            "enabled": self.enabled,
            "exclude_joints": self.exclude_joints,
            "action_names": self.action_names,
        }

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with relative actions; without actions, with the anchor.

        Raises:
            ProcessingError: there is no state, or it is narrower than the action.
        """
        if not self.enabled:
            return batch
        state = batch.get(OBS_STATE)
        if state is None:
            raise ProcessingError(
                f"the batch has no {OBS_STATE!r}, which actions are relative to. Add it, or set "
                "--policy.use_relative_actions=false."
            )
        action = batch.get(ACTION)
        if action is None:
            # Only a batch without actions asks for some: training, perhaps in another thread,
            # must not move the anchor of a rollout.
            self.anchor.state = state
            return batch | {ACTION_ANCHOR: self.anchor}
        return batch | {ACTION: action - self.offset(action, state)}

    def offset(self, action: Tensor, state: Tensor) -> Tensor:
        """Return what an action or chunk, (batch, [horizon,] action_dim), is relative to.

        Raises:
            ProcessingError: the state lacks a dimension that is relative.
        """
        dims = relative_dims(action.shape[-1], self.exclude_joints, self.action_names)
        if dims and dims[-1] >= state.shape[-1]:
            raise ProcessingError(
                f"action dimension {dims[-1]} is relative to the state, which has only "
                f"{state.shape[-1]} dimensions. Name what stays absolute in "
                "--policy.relative_exclude_joints, or set --policy.use_relative_actions=false."
            )
        offset = torch.zeros_like(action[..., 0, :] if action.ndim == 3 else action)
        offset[..., dims] = state[..., dims].to(action.device, action.dtype)
        return offset.unsqueeze(-2) if action.ndim == 3 else offset


class AbsoluteActions(Step):
    """The inverse: adds the state that the actions were predicted from, after unscaling."""

    registry_name = "absolute_actions_processor"

    def __init__(self, enabled: bool = False) -> None:
        """Take whether the policy's actions are relative at all."""
        self.enabled = enabled
        self.relative: RelativeActions | None = None

    def config(self) -> dict[str, Any]:
        return {"enabled": self.enabled}

    def link(self, preprocessing: Sequence[Step]) -> None:
        """Find the step that keeps the anchor."""
        found = (step for step in preprocessing if isinstance(step, RelativeActions))
        self.relative = next(found, None)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with absolute actions.

        Raises:
            ProcessingError: no observation was preprocessed before.
        """
        action = batch.get(ACTION)
        if not self.enabled or action is None:
            return batch
        state = None if self.relative is None else self.relative.anchor.state
        if self.relative is None or state is None:
            raise ProcessingError(
                "the actions are relative to a state that is not known; expected an observation "
                "to have gone through the preprocessor loaded together with this postprocessor. "
                "Load both with load_processors, and preprocess first."
            )
        if len(state) != len(action):
            raise ProcessingError(
                f"{len(action)} rows of actions are relative to {len(state)} rows of states; "
                "expected as many. Postprocess the actions of the batch that was preprocessed last."
            )
        return batch | {ACTION: action + self.relative.offset(action, state)}
