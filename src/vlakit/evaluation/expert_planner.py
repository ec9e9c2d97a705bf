# SPDX-License-Identifier: Apache-2.0
"""A scripted expert as the planner of rollouts: `vlakit eval --policy.type=expert`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlakit.environments.expert_env import EXPERT_ACTION
from vlakit.evaluation.planning import EpisodeMemory


class ExpertPlanner:
    """Passes on what the expert of an `ExpertEnvConfig` would do, one action at a time."""

    preparation_s = 0.0

    def plan(
        self, observations: Sequence[Mapping[str, NDArray[Any]]], memories: Sequence[EpisodeMemory]
    ) -> list[NDArray[np.float32]]:
        """Return one chunk (1, action_dim) per episode; see `Planner`."""
        return [np.asarray(seen[EXPERT_ACTION], np.float32)[None] for seen in observations]
