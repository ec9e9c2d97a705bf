# SPDX-License-Identifier: Apache-2.0
"""Where the recorded reference data lies: the full set beside the repository, else our subset."""

from __future__ import annotations

from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[1]
_FULL = _REPOSITORY.parent / "shared" / "fixtures" / "open"
_SUBSET = _REPOSITORY / "tests" / "fixtures"

FIXTURE_ROOT = _FULL if _FULL.is_dir() else _SUBSET


def cases(kind: str) -> list[str]:
    """Return the names of the recorded cases of one kind, such as 'eo1'."""
    return sorted(path.name for path in (FIXTURE_ROOT / kind).iterdir() if path.is_dir())


LIBERO_ASSETS = _REPOSITORY.parent / "shared" / "libero-assets"
"""LIBERO's meshes and textures, some of them stand-ins; tests that need them skip without."""
