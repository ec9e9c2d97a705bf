# SPDX-License-Identifier: Apache-2.0
"""LeRobot datasets on disk: read v3.0 and v2.1, write v3.0. No policy is known here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlakit.lazy import lazy_names

if TYPE_CHECKING:
    from vlakit.datasets.reader import LeRobotDataset
    from vlakit.datasets.writer import LeRobotDatasetWriter

__all__ = ["LeRobotDataset", "LeRobotDatasetWriter"]

__getattr__ = lazy_names(
    __name__,
    {
        "LeRobotDataset": "vlakit.datasets.reader",
        "LeRobotDatasetWriter": "vlakit.datasets.writer",
    },
)
