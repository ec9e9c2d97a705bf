# SPDX-License-Identifier: Apache-2.0
"""Steps between raw batches and what a policy takes, each with its inverse beside it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["Pipeline", "load_processors"]

_HOMES = {
    "Pipeline": "vlakit.processing.pipeline",
    # Pipelines hold steps of policies, so what loads them lives with the policies.
    "load_processors": "vlakit.policies.processors",
}


def __getattr__(name: str) -> Any:
    """Import the module of a public name at its first use: torch takes a second to load."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
