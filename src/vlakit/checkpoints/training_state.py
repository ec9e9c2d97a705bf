# SPDX-License-Identifier: Apache-2.0
"""Checkpoint folders of a run, written so that a kill at any moment leaves a whole one.

    <output_dir>/checkpoints/
      000500/pretrained_model/...      weights, configs, processors: what inference needs
      000500/training_state/...        optimiser, schedule, random numbers, step: to resume
      last -> 000500                   switched in one move, after everything is on disk

A checkpoint is filled in a hidden folder beside its place, flushed to disk, then renamed. Files and
names of `training_state` are LeRobot's.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlakit.errors import CheckpointError

CHECKPOINTS = "checkpoints"
LAST = "last"
PRETRAINED_MODEL = "pretrained_model"
TRAINING_STATE = "training_state"
OPTIMIZER_STATE = "optimizer_state.safetensors"
OPTIMIZER_GROUPS = "optimizer_param_groups.json"
SCHEDULER_STATE = "scheduler_state.json"
RNG_STATE = "rng_state.safetensors"
TRAINING_STEP = "training_step.json"
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


def save_training_state(
    folder: Path,
    *,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    step: int,
    batch_size: int,
) -> None:
    """Write optimiser, schedule, random-number and step files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = optimizer.state_dict()
    tensors = {
        f"state/{index}/{name}": value.contiguous()
        for index, values in state["state"].items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }
    save_file(tensors, folder / OPTIMIZER_STATE)
    _write_json(folder / OPTIMIZER_GROUPS, state["param_groups"])
    _write_json(folder / SCHEDULER_STATE, scheduler.state_dict())
    save_file(random_state(), folder / RNG_STATE)
    _write_json(
        folder / TRAINING_STEP, {"step": step, "num_processes": 1, "batch_size": batch_size}
    )


def load_training_step(folder: Path) -> tuple[int, int]:
    """Return the steps done and the samples per step, over all processes, of a checkpoint.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    entry = _read_json(folder / TRAINING_STEP)
    try:
        processes = entry.get("num_processes", entry.get("dp_world_size", 1))
        return int(entry["step"]), int(entry.get("batch_size", 0)) * int(processes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{folder / TRAINING_STEP} lacks a usable 'step' and 'batch_size'; the checkpoint "
            "cannot be resumed. Start from its weights instead: --policy.path=<pretrained_model>."
        ) from error


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> int:
    """Give the optimiser its saved moments and settings.

    Settings that this torch has and the file lacks keep their present value, so that another torch
    version can resume.

    Returns:
        How many parameters the file has nothing for, such as those that never got a gradient.

    Raises:
        CheckpointError: The files are missing, damaged or of other parameters.
    """
    tensors, groups = read_tensors(folder / OPTIMIZER_STATE), _read_json(folder / OPTIMIZER_GROUPS)
    present = optimizer.state_dict()["param_groups"]
    _check_groups(folder / OPTIMIZER_GROUPS, groups, present)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = _moments(folder / OPTIMIZER_STATE, tensors, parameters)
    merged = [now | {k: _like(now[k], v) for k, v in saved.items() if k in now}
              for now, saved in zip(present, groups, strict=True)]  # fmt: skip
    optimizer.load_state_dict({"state": state, "param_groups": merged})
    return len(parameters) - len(state)


def _check_groups(path: Path, groups: Any, present: list[dict[str, Any]]) -> None:
    try:
        saved = [len(group["params"]) for group in groups]
    except (TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path} is no list of parameter groups with 'params' each; resume from another one."
        ) from error
    needed = [len(group["params"]) for group in present]
    if saved != needed:
        raise CheckpointError(
            f"{path} is for {saved} parameters, the policy has {needed}; resume with the policy "
            "settings of the checkpoint."
        )


def _moments(
    path: Path, tensors: dict[str, Tensor], parameters: list[Tensor]
) -> dict[int, dict[str, Tensor]]:
    """Return the optimiser's tensors by parameter, after a look at names and shapes."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        match = re.fullmatch(r"state/(\d+)/(\w+)", name)
        if match is None or int(match[1]) >= len(parameters):
            raise CheckpointError(
                f"{path} holds the tensor {name!r}; expected state/<parameter below "
                f"{len(parameters)}>/<moment>. Resume with the policy settings of the checkpoint."
            )
        index, key = int(match[1]), match[2]
        shape = parameters[index].shape
        if value.ndim and value.shape != shape:
            raise CheckpointError(
                f"{path}: {key} of parameter {index} has shape {tuple(value.shape)}, the policy's "
                f"is {tuple(shape)}; resume with the policy settings of the checkpoint."
            )
        state.setdefault(index, {})[key] = value
    keys = set().union(*state.values())
    for index, values in state.items():
        if missing := sorted(keys - values.keys()):
            raise CheckpointError(
                f"{path} lacks state/{index}/{missing[0]}, which the other parameters have; resume "
                "from another checkpoint."
            )
    return state


def _like(present: Any, saved: Any) -> Any:
    return tuple(saved) if isinstance(present, tuple) else saved


def load_scheduler(folder: Path, scheduler: torch.optim.lr_scheduler.LRScheduler) -> None:
    """Give the schedule its saved position; keys of other torch versions are left out.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    saved = _read_json(folder / SCHEDULER_STATE)
    if not isinstance(saved, dict):
        raise CheckpointError(
            f"{folder / SCHEDULER_STATE} holds a {type(saved).__name__}; expected a schedule's "
            "position by name. Resume from another checkpoint."
        )
    present = scheduler.state_dict()
    scheduler.load_state_dict(present | {k: v for k, v in saved.items() if k in present})


def random_state() -> dict[str, Tensor]:
    """Return the state of Python's, numpy's and torch's generators, in LeRobot's layout."""
    version, words, _ = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    assert kind == "MT19937"
    state = {
        "py_rng_version": torch.tensor([version], dtype=torch.int64),
        "py_rng_state": torch.tensor(words, dtype=torch.int64),
        "np_rng_state_values": torch.tensor(np.asarray(keys).astype(np.int64)),
        "np_rng_state_index": torch.tensor([position], dtype=torch.int64),
        "np_rng_has_gauss": torch.tensor([has_gauss], dtype=torch.int64),
        "np_rng_cached_gaussian": torch.tensor([cached], dtype=torch.float32),
        "torch_rng_state": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["torch_cuda_rng_state"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Tensor]) -> None:
    """Set Python's, numpy's and torch's generators to a state of `random_state`."""
    words = tuple(state["py_rng_state"].tolist())
    random.setstate((int(state["py_rng_version"]), words, None))
    np.random.set_state(
        (
            "MT19937",
            state["np_rng_state_values"].numpy().astype(np.uint32),
            int(state["np_rng_state_index"]),
            int(state["np_rng_has_gauss"]),
            float(state["np_rng_cached_gaussian"]),
        )
    )
    torch.set_rng_state(state["torch_rng_state"])
    if "torch_cuda_rng_state" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["torch_cuda_rng_state"])


def load_random_state(folder: Path) -> None:
    """Set the generators to the state saved in `folder`.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    state = read_tensors(folder / RNG_STATE)
    try:
        set_random_state(state)
    except (KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder / RNG_STATE} does not hold a usable state of the random numbers: {error}. "
            "Resume from another checkpoint."
        ) from error


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=4), encoding="utf-8")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is missing: the checkpoint cannot be resumed. Give one with a training_state "
            "folder, or start from its weights with --policy.path=<pretrained_model>."
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}); resume from another one.") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of one file of a `training_state`.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing: the checkpoint cannot be resumed. Give one with a training_state "
            "folder, or start from its weights with --policy.path=<pretrained_model>."
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); resume from another one.") from error
