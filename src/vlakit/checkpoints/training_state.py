# SPDX-License-Identifier: Apache-2.0
"""What a run needs to go on: optimiser, schedule, random numbers and step, in LeRobot's files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlakit.checkpoints.random_state import random_state, set_random_state
from vlakit.errors import CheckpointError
from vlakit.files import read_json, write_json

OPTIMIZER_STATE = "optimizer_state.safetensors"
OPTIMIZER_GROUPS = "optimizer_param_groups.json"
SCHEDULER_STATE = "scheduler_state.json"
RNG_STATE = "rng_state.safetensors"
TRAINING_STEP = "training_step.json"
_HOW = ("fused", "foreach")
"""Settings of how an update is computed: this run's count, whatever device the file comes from."""
_MISSING = (
    ": the checkpoint cannot be resumed. Give one with a training_state folder, or start from its "
    "weights with --policy.path=<pretrained_model>."
)
_DAMAGED = "Resume from another checkpoint."


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
    write_json(folder / OPTIMIZER_GROUPS, state["param_groups"])
    write_json(folder / SCHEDULER_STATE, scheduler.state_dict())
    save_file(random_state(), folder / RNG_STATE)
    write_json(folder / TRAINING_STEP, {"step": step, "num_processes": 1, "batch_size": batch_size})


def load_training_step(folder: Path) -> tuple[int, int]:
    """Return the steps done and the samples per step, over all processes, of a checkpoint.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    entry = _read_state(folder / TRAINING_STEP, dict)
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
    version can resume. So does the choice of kernel, which may differ from device to device.

    Returns:
        How many parameters the file has nothing for, such as those that never got a gradient.

    Raises:
        CheckpointError: The files are missing, damaged or of other parameters.
    """
    tensors = read_tensors(folder / OPTIMIZER_STATE)
    groups = _read_state(folder / OPTIMIZER_GROUPS, list)
    present = optimizer.state_dict()["param_groups"]
    _check_groups(folder / OPTIMIZER_GROUPS, groups, present)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = _moments(folder / OPTIMIZER_STATE, tensors, parameters)
    merged = [now | {k: _like(now[k], v) for k, v in saved.items() if k in now and k not in _HOW}
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
    saved = _read_state(folder / SCHEDULER_STATE, dict)
    present = scheduler.state_dict()
    scheduler.load_state_dict(present | {k: v for k, v in saved.items() if k in present})


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


def _read_state(path: Path, kind: type) -> Any:
    return read_json(path, CheckpointError, missing=_MISSING, damaged=_DAMAGED, kind=kind)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of one file of a `training_state`.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing{_MISSING}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). {_DAMAGED}") from error
