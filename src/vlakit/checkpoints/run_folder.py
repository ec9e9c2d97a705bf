# SPDX-License-Identifier: Apache-2.0
"""Checkpoint folders of a run, written so that a kill at any moment leaves a whole one.

    <output_dir>/checkpoints/
      000500/pretrained_model/...      weights, configs, processors: what inference needs
      000500/training_state/...        optimiser, schedule, random numbers, step: to resume
      last -> 000500                   switched in one move, after everything is on disk

A checkpoint is filled in a hidden folder beside its place, flushed to disk, then renamed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from vlakit.errors import CheckpointError

CHECKPOINTS = "checkpoints"
LAST = "last"
PRETRAINED_MODEL = "pretrained_model"
TRAINING_STATE = "training_state"
TRAIN_CONFIG = "train_config.json"
"""In `pretrained_model`: the flags of the run that LeRobot knows."""
OWN_CONFIG = "vlakit_config.json"
"""Beside it: the flags that only vlakit knows."""
UNFINISHED = ".unfinished-"


def checkpoint_name(step: int, num_steps: int) -> str:
    """Return the folder name of a step: at least six digits, as many as the last step needs."""
    return f"{step:0{max(6, len(str(num_steps)))}d}"


def write_checkpoint(checkpoints: Path, name: str, fill: Callable[[Path], None]) -> Path:
    """Write `checkpoints/name` whole or not at all, then let `last` point to it.

    Args:
        checkpoints: Folder of all checkpoints; made when missing.
        name: Folder name of the new one.
        fill: Writes the content into the folder it is given.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: The disk is full or cannot be written.
    """
    try:
        return _write_checkpoint(checkpoints, name, fill)
    except (OSError, SafetensorError) as error:
        if checkpoints.is_dir():
            remove_unfinished(checkpoints)
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"the checkpoint {checkpoints / name} could not be written ({reason}); expected a disk "
            "with room for it. Make room, then go on from the checkpoint before it, which is whole."
        ) from error


def _write_checkpoint(checkpoints: Path, name: str, fill: Callable[[Path], None]) -> Path:
    checkpoints.mkdir(parents=True, exist_ok=True)
    remove_unfinished(checkpoints)
    draft = checkpoints / f"{UNFINISHED}{name}"
    draft.mkdir()
    fill(draft)
    _sync_tree(draft)
    target = checkpoints / name
    if target.exists():  # the step was saved by an earlier run that was resumed from before it
        replaced = checkpoints / f"{UNFINISHED}{name}-replaced"
        target.rename(replaced)
        draft.rename(target)
        shutil.rmtree(replaced)
    else:
        draft.rename(target)
    _sync(checkpoints)
    _point_last(checkpoints, name)
    return target


def remove_unfinished(checkpoints: Path) -> None:
    """Delete what a killed run left half written."""
    for path in checkpoints.glob(f"{UNFINISHED}*"):
        path.unlink() if path.is_symlink() else shutil.rmtree(path)


def _point_last(checkpoints: Path, name: str) -> None:
    draft = checkpoints / f"{UNFINISHED}{LAST}"
    draft.symlink_to(name, target_is_directory=True)
    os.replace(draft, checkpoints / LAST)
    _sync(checkpoints)


def _sync_tree(folder: Path) -> None:
    """Flush a folder to disk; files become as readable as the folder (safetensors: 0600)."""
    mode = folder.stat().st_mode & 0o666
    for root, _, files in os.walk(folder):
        for file in files:
            path = Path(root) / file
            path.chmod(mode)
            _sync(path)
        _sync(Path(root))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
