# SPDX-License-Identifier: Apache-2.0
"""Whether a folder can be made, asked before the work that would fill it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from vlakit.errors import ConfigError


def check_can_be_made(folder: Path, flag: str) -> None:
    """Make sure that a folder can be made and written; nothing is left behind.

    Args:
        folder: Need not exist.
        flag: The flag that names it, such as '--output_dir', for the message.

    Raises:
        ConfigError: A parent is a file, or its file system refuses.
    """
    folder = folder.expanduser()
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        # Only trying tells: permissions say little to root, on network disks and on full ones.
        tempfile.TemporaryDirectory(dir=parent, prefix=".vlakit-").cleanup()
    except OSError as error:
        raise ConfigError(
            f"{flag}={folder} cannot be made: {parent} takes no new folder ({error.strerror}). "
            f"Give another {flag}, or make it writable."
        ) from error
