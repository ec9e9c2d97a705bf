# SPDX-License-Identifier: Apache-2.0
"""The queue hands out the start of a chunk in order."""

from __future__ import annotations

import torch

from vlakit.policies.action_queue import ActionQueue


def test_queue_keeps_n_action_steps_and_forgets_on_clear() -> None:
    queue, chunk = ActionQueue(2), torch.arange(8.0).view(1, 4, 2)
    queue.refill(chunk)
    assert len(queue) == 2
    assert queue.pop().equal(chunk[:, 0])
    queue.clear()
    assert not queue
