# SPDX-License-Identifier: Apache-2.0
"""The simulators of `--env.type`: importing a simulator's file registers its settings.

A new simulator is one file beside this one and one line here; see `docs/simulators.md`.
"""

from __future__ import annotations

from vlakit.environments.base import EnvConfig
from vlakit.environments.metaworld import MetaworldEnvConfig

__all__ = ["EnvConfig", "MetaworldEnvConfig"]
