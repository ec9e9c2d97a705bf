# SPDX-License-Identifier: Apache-2.0
"""EO-1: a Qwen2.5-VL that denoises action chunks by flow matching."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlakit.policies.eo1.config import EO1Config
    from vlakit.policies.eo1.policy import EO1Policy

__all__ = ["EO1Config", "EO1Policy"]


def __getattr__(name: str) -> Any:
    """Load a class when it is asked for: the policy needs torch, its settings do not."""
    if name == "EO1Policy":
        from vlakit.policies.eo1.policy import EO1Policy

        return EO1Policy
    if name == "EO1Config":
        from vlakit.policies.eo1.config import EO1Config

        return EO1Config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
