# SPDX-License-Identifier: Apache-2.0
"""EO-1: a Qwen2.5-VL that denoises action chunks by flow matching."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlakit.lazy import lazy_names

if TYPE_CHECKING:
    from vlakit.policies.eo1.config import EO1Config
    from vlakit.policies.eo1.policy import EO1Policy

__all__ = ["EO1Config", "EO1Policy"]

__getattr__ = lazy_names(
    __name__,
    {
        "EO1Config": "vlakit.policies.eo1.config",
        "EO1Policy": "vlakit.policies.eo1.policy",
    },
)
