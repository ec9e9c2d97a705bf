# SPDX-License-Identifier: Apache-2.0
"""pi0-FAST: a PaliGemma that writes action chunks as FAST tokens, one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlakit.lazy import lazy_names

if TYPE_CHECKING:
    from vlakit.policies.pi0_fast.config import PI0FastConfig
    from vlakit.policies.pi0_fast.policy import PI0FastPolicy

__all__ = ["PI0FastConfig", "PI0FastPolicy"]

__getattr__ = lazy_names(
    __name__,
    {
        "PI0FastConfig": "vlakit.policies.pi0_fast.config",
        "PI0FastPolicy": "vlakit.policies.pi0_fast.policy",
    },
)
