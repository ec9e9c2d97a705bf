# SPDX-License-Identifier: Apache-2.0
"""The settings that a checkpoint holds, whichever policy it is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlakit.checkpoints.pretrained import read_config
from vlakit.errors import CheckpointError
from vlakit.hub import resolve
from vlakit.policies.config import CONFIG_FILE, POLICIES, PolicyConfig, config_class


def read_policy_config(
    path_or_repo_id: str | Path, *, revision: str | None = None, token: str | None = None
) -> PolicyConfig:
    """Return the settings stored in a checkpoint, LeRobot's layout or the EO-1 project's own.

    Raises:
        CheckpointError: when there is no configuration, or it is of neither layout.
    """
    folder = resolve(path_or_repo_id, revision=revision, token=token, patterns=[CONFIG_FILE])
    entries = read_config(folder)
    if "type" in entries:
        return PolicyConfig.from_json(entries, source=str(folder / CONFIG_FILE))
    kind = entries.get("model_type")
    if kind not in POLICIES:
        raise CheckpointError(
            f"{folder / CONFIG_FILE} has neither a policy 'type' nor a 'model_type' of "
            f"{', '.join(POLICIES)} (it says {kind!r}). Give a policy checkpoint."
        )
    upstream: Any = config_class(kind)
    return upstream.from_upstream(entries, source=str(path_or_repo_id))
