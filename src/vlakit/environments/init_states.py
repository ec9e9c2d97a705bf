# SPDX-License-Identifier: Apache-2.0
"""Reading LIBERO's stored starts without running what is in the file.

A `.pruned_init` file is a zip with one pickled numpy array, which loading would execute. Here the
instructions of the pickle are listed, never run: the array's shape and bytes stand among them, and
a file that holds anything but one plain float64 array is refused.
"""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlakit.errors import SimulatorError

ARRAY_PARTS = frozenset(
    ("numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype", "_codecs encode")
)
"""All that a pickled array names; in protocol 2 its bytes are text in latin1."""


def read_init_states(path: Path) -> NDArray[np.float64]:
    """Return the stored starts of one task (starts, 1 + positions + velocities).

    Raises:
        SimulatorError: The file is missing, damaged or holds something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (entry,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            steps = [
                (step.name, value) for step, value, _ in pickletools.genops(archive.read(entry))
            ]
        return _array(steps)
    except (OSError, ValueError, UnicodeError, zipfile.BadZipFile) as error:
        raise SimulatorError(
            f"{path} cannot be read ({error}), expected LIBERO's stored starts of a task: install "
            "hf-libero again."
        ) from error


def _array(steps: list[tuple[str, Any]]) -> NDArray[np.float64]:
    """Return the array that the steps of a pickle spell.

    Raises:
        ValueError: They spell something else.
    """
    named = {value for name, value in steps if name == "GLOBAL"}
    if named != ARRAY_PARTS:
        raise ValueError(f"it names {', '.join(sorted(named)) or 'nothing'}, not one array")
    texts = [str(value) for name, value in steps if name == "BINUNICODE"]
    numbers = [value for name, value in steps if name in ("BININT1", "BININT2", "BININT")]
    by_columns = [name for name, _ in steps if name in ("NEWTRUE", "NEWFALSE")][-1] == "NEWTRUE"
    # 0: of an empty array that is filled; 1: the format's version; then rows and columns.
    is_plain = numbers[:2] == [0, 1] and len(numbers) >= 4 and not by_columns
    if not is_plain or "f8" not in texts or "<" not in texts:
        raise ValueError("its array is not one of float64 with rows and columns")
    data = max(texts, key=len).encode("latin1")
    return np.frombuffer(data, "<f8").reshape(numbers[2], numbers[3])
