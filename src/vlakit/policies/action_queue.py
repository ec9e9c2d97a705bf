# SPDX-License-Identifier: Apache-2.0
"""Actions that were predicted and not executed yet."""

from __future__ import annotations

from collections import deque

from torch import Tensor


class ActionQueue:
    """Hands out the first actions of a chunk one by one."""

    def __init__(self, n_action_steps: int) -> None:
        self.n_action_steps = n_action_steps
        self._actions: deque[Tensor] = deque()

    def __len__(self) -> int:
        return len(self._actions)

    def clear(self) -> None:
        """Forget what is left, as at the start of an episode."""
        self._actions.clear()

    def refill(self, chunk: Tensor) -> None:
        """Take the first `n_action_steps` of a chunk (batch, horizon, action_dim)."""
        self._actions.extend(chunk[:, : self.n_action_steps].unbind(dim=1))

    def pop(self) -> Tensor:
        """Return the next action, (batch, action_dim)."""
        return self._actions.popleft()
