# SPDX-License-Identifier: Apache-2.0
"""LeRobot datasets on disk: read v3.0 and v2.1, write v3.0. No policy is known here.

The two classes are loaded on first use, so that importing `vlakit.datasets.config` stays
torch-free.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlakit.datasets.reader import LeRobotDataset
    from vlakit.datasets.writer import LeRobotDatasetWriter

__all__ = ["LeRobotDataset", "LeRobotDatasetWriter"]

_HOMES = {
    "LeRobotDataset": "vlakit.datasets.reader",
    "LeRobotDatasetWriter": "vlakit.datasets.writer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
