# SPDX-License-Identifier: Apache-2.0
"""Where a result comes from: versions of what took part, and the machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from vlakit import __version__

PACKAGES = (
    "torch",
    "numpy",
    "mujoco",
    "metaworld",
    "hf-libero",
    "robosuite",
    "gym-pusht",
    "pymunk",
)
"""What a success rate may depend on, where it is installed."""


def versions() -> dict[str, str]:
    """Return the versions of vlakit, Python and the packages that are installed here."""
    found = {"vlakit": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Return the machine in words."""
    return f"{os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}"
