# SPDX-License-Identifier: Apache-2.0
"""`--policy.path`: the settings of a checkpoint with flags put over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlakit.config.schema import TYPE_KEY
from vlakit.errors import ConfigError
from vlakit.policies.stored_config import read_policy_config

PATH_FLAG = {
    "policy.path": "Checkpoint to start from, a folder or hub id: its settings, weights and "
    "processors; other --policy.* flags change its settings."
}


def with_policy_path(raw: dict[str, Any]) -> dict[str, Any]:
    """Return raw values in which `policy.path` is replaced by what that checkpoint says.

    Its stored `device` and hub settings belonged to the run that wrote it: they are left out.

    Raises:
        ConfigError: `policy.type` is given too.
        CheckpointError: There is no such checkpoint.
    """
    policy = raw.get("policy")
    if not isinstance(policy, Mapping) or policy.get("path") is None:
        return raw
    given = {key: value for key, value in policy.items() if key != "path"}
    if TYPE_KEY in given:
        raise ConfigError(
            f"--policy.path={policy['path']} and --policy.type={given[TYPE_KEY]} exclude one "
            "another: the checkpoint has a type. Give only --policy.path."
        )
    path = str(policy["path"])
    stored = read_policy_config(path, revision=given.get("pretrained_revision")).to_json()
    for key in ("device", "repo_id", "private", "tags", "license"):
        stored.pop(key, None)
    merged = {key: _merged(stored.get(key), value) for key, value in given.items()}
    return raw | {"policy": stored | merged | {"pretrained_path": path}}


def _merged(stored: Any, given: Any) -> Any:
    both = isinstance(stored, Mapping) and isinstance(given, Mapping)
    return {**stored, **given} if both else given
