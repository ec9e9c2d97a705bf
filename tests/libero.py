# SPDX-License-Identifier: Apache-2.0
"""What tests of LIBERO share: where it is not installed or has no assets, they are skipped."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from tests.fixtures_root import LIBERO_ASSETS
from vlakit.environments.base import Environment
from vlakit.environments.config import LiberoEnvConfig

IS_INSTALLED = find_spec("libero") is not None
needs_libero = pytest.mark.skipif(
    not (IS_INSTALLED and LIBERO_ASSETS.is_dir()),
    reason="LIBERO is not installed (make libero) or its assets are not in ../shared",
)


def small_libero(suite: str, task_id: int = 0, **settings: Any) -> LiberoEnvConfig:
    """Return settings with pictures of 32 pixels and the assets of the tests."""
    chosen = {"observation_height": 32, "observation_width": 32, "assets_dir": str(LIBERO_ASSETS)}
    return LiberoEnvConfig(task=suite, task_ids=(task_id,), **(chosen | settings))


def made(config: LiberoEnvConfig) -> Environment:
    """Return the environment of the first task."""
    return config.make(config.task_list()[0].name)
