# SPDX-License-Identifier: Apache-2.0
"""The flags of `vlakit train`, made complete: presets, checkpoints, runs that go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from vlakit.checkpoints.run_folder import OWN_CONFIG, TRAIN_CONFIG
from vlakit.cli.output_folder import check_can_be_made
from vlakit.cli.policy_flags import PATH_FLAG, with_policy_path
from vlakit.config import encode, merged, parse_flags, read_config_file
from vlakit.errors import ConfigError
from vlakit.policies.config import register_configs
from vlakit.training.config import TrainFlags
from vlakit.training.lerobot_keys import not_built_flags, take_out_not_built
from vlakit.training.optimizer_config import (
    OptimizerConfig,
    preset_optimizer,
    preset_scheduler,
)

SUMMARY = (
    "Train a policy on a LeRobot dataset, with LeRobot's flags. Resume a run with --resume=true "
    "--config_path=<output_dir>/checkpoints/last/pretrained_model/train_config.json."
)


def read_flags(argv: Sequence[str]) -> TrainFlags:
    """Return the flags of a command line, complete: presets, checkpoint and own keys included.

    Raises:
        ConfigError: Something in them cannot work.
    """
    register_configs()
    arguments, config_file = _with_config_file(argv)
    checkpoint = config_file.parent if config_file and config_file.name == TRAIN_CONFIG else None

    def prepare(raw: dict[str, Any]) -> dict[str, Any]:
        raw = take_out_not_built(raw)
        if checkpoint is not None and (checkpoint / OWN_CONFIG).is_file():
            raw = merged(read_config_file(checkpoint / OWN_CONFIG), raw)
        if raw.get("resume") is True:
            return _resumed(raw, checkpoint, arguments)
        return with_policy_path(_pushed_when_named(raw))

    flags = parse_flags(
        TrainFlags,
        arguments,
        prog="vlakit train",
        summary=SUMMARY,
        prepare=prepare,
        extra_flags=PATH_FLAG | not_built_flags(),
    )
    flags = _with_presets(flags)
    output_dir = flags.output_path(datetime.now())
    if not flags.resume and output_dir.exists():
        raise ConfigError(
            f"--output_dir={output_dir} exists already and is not overwritten: give another one, "
            f"or go on with --resume=true --config_path={output_dir}/checkpoints/last/"
            f"pretrained_model/{TRAIN_CONFIG}."
        )
    check_can_be_made(output_dir, "--output_dir")
    return dataclasses.replace(flags, output_dir=output_dir, job_name=flags.name())


def _with_config_file(argv: Sequence[str]) -> tuple[list[str], Path | None]:
    """Return the arguments with `--config_path` as a file, and that file.

    A checkpoint's folder, its `pretrained_model` or `train_config.json` all name the same file.
    """
    arguments = list(argv)
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name != "--config_path":
            continue
        if not equals:
            value = arguments[index + 1] if index + 1 < len(arguments) else ""
        folder = Path(value)
        for path in (folder / TRAIN_CONFIG, folder / "pretrained_model" / TRAIN_CONFIG):
            if folder.is_dir() and path.is_file():
                arguments[index : index + (1 if equals else 2)] = [f"--config_path={path}"]
                return arguments, path
        return arguments, folder
    return arguments, None


def _pushed_when_named(raw: dict[str, Any]) -> dict[str, Any]:
    """Leave the upload out where neither the flag nor a repository's name asks for it.

    LeRobot pushes by default, so its own documented commands stop for want of a `repo_id`.
    """
    policy = raw.get("policy")
    if not isinstance(policy, dict) or "push_to_hub" in policy or policy.get("repo_id"):
        return raw
    return raw | {"policy": {**policy, "push_to_hub": False}}


def _resumed(
    raw: dict[str, Any], checkpoint: Path | None, arguments: Sequence[str]
) -> dict[str, Any]:
    """Return the values of a run to be continued: weights and folder follow from the checkpoint."""
    if checkpoint is None:
        raise ConfigError(
            "--resume=true needs --config_path=<output_dir>/checkpoints/last/pretrained_model/"
            f"{TRAIN_CONFIG} of the run to go on with."
        )
    policy = dict(raw.get("policy") or {})
    if "path" in policy:
        raise ConfigError(
            "--policy.path starts a new run and --resume=true goes on with one: give one of them."
        )
    policy["pretrained_path"] = str(checkpoint)
    policy["pretrained_revision"] = None
    raw = raw | {"policy": policy}
    run_folder = checkpoint.resolve().parent.parent
    is_given = any(argument.startswith("--output_dir") for argument in arguments)
    if not is_given and run_folder.name == "checkpoints":
        raw["output_dir"] = str(run_folder.parent)  # the run may have been moved since
    return raw


def _with_presets(flags: TrainFlags) -> TrainFlags:
    """Return the flags with optimiser and schedule of the policy's settings, if the preset is used.

    Raises:
        ConfigError: `--optimizer.*` or `--scheduler.*` say something else, which would be ignored.
    """
    assert flags.policy is not None
    if not flags.use_policy_training_preset:
        return flags
    presets = {
        "optimizer": preset_optimizer(flags.policy),
        "scheduler": preset_scheduler(flags.policy),
    }
    for name, preset in presets.items():
        given = getattr(flags, name)
        if given is not None and given != preset:
            change = _difference(encode(given), encode(preset))
            policy_flags = "optimizer_lr=... (and the other --policy.optimizer_*)"
            if not isinstance(given, OptimizerConfig):
                policy_flags = "scheduler_decay_steps=... (and the other --policy.scheduler_*)"
            raise ConfigError(
                f"--{name}.{change} would be ignored, as --use_policy_training_preset is true: "
                f"give --policy.{policy_flags} instead, or --use_policy_training_preset=false with "
                "both --optimizer.type and --scheduler.type."
            )
    return dataclasses.replace(flags, **presets)


def _difference(given: dict[str, Any], preset: dict[str, Any]) -> str:
    for key, value in given.items():
        if key not in preset or preset[key] != value:
            return f"{key}={value}"
    return "type"
