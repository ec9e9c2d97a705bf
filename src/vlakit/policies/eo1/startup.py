# SPDX-License-Identifier: Apache-2.0
"""What EO-1 looks at before a run: nothing that its processors do not check by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlakit.policies.eo1.config import EO1Config
from vlakit.processing.pipeline import Pipeline


def check_data(config: EO1Config, preprocess: Pipeline, sample: Mapping[str, Any]) -> list[str]:
    """Return no notes: any state and action will do."""
    return []
