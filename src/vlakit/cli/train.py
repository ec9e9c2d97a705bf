# SPDX-License-Identifier: Apache-2.0
"""`vlakit train`: from flags to a trained policy, or from a checkpoint on.

Everything that can be wrong is looked at before the output folder is made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlakit.checkpoints.run_folder import OWN_CONFIG, TRAIN_CONFIG
from vlakit.cli.output_folder import check_can_be_made
from vlakit.cli.policy_flags import PATH_FLAG, with_policy_path
from vlakit.config import decode, encode, merged, parse_flags, read_config_file
from vlakit.errors import ConfigError
from vlakit.policies.registry import register_configs
from vlakit.training.config import TrainFlags
from vlakit.training.lerobot_keys import not_built_flags, take_out_not_built
from vlakit.training.optimizer_config import (
    OptimizerConfig,
    preset_optimizer,
    preset_scheduler,
)
from vlakit.training.schedule import zero_rate_notice

if TYPE_CHECKING:
    from rich.console import Console

    from vlakit.policies.config import PolicyConfig
    from vlakit.training.trainer import Rollouts, Trainer

SUMMARY = (
    "Train a policy on a LeRobot dataset, with LeRobot's flags. Resume a run with --resume=true "
    "--config_path=<output_dir>/checkpoints/last/pretrained_model/train_config.json."
)


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    train(read_flags(argv))
    return 0


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
        return with_policy_path(raw)

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


def train(
    flags: TrainFlags, *, rollouts: Rollouts | None = None, console: Console | None = None
) -> Trainer:
    """Train a policy; returns the trainer, done.

    Args:
        flags: Complete, as `read_flags` returns them.
        rollouts: Called for in-training evaluation; made from `flags.env` when None.
        console: Where to report; standard error when None.
    """
    from rich.console import Console

    console = console or Console(stderr=True)
    trainer = make_trainer(flags, rollouts=rollouts, console=console)
    _announce(flags, console)
    try:
        trainer.fit()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_go_on(trainer)) from None
    if flags.save_checkpoint:
        console.print(f"checkpoint: {trainer.last_checkpoint}", highlight=False, soft_wrap=True)
    if flags.policy and flags.policy.push_to_hub:
        _push(trainer, console)
    return trainer


def make_trainer(
    flags: TrainFlags, *, rollouts: Rollouts | None = None, console: Console | None = None
) -> Trainer:
    """Return a trainer ready to run; nothing is written.

    Raises:
        VlakitError: Device, dataset, checkpoint or their combination cannot work.
    """
    import torch

    from vlakit.checkpoints.run_folder import PRETRAINED_MODEL
    from vlakit.policies.base import resolve_device
    from vlakit.policies.registry import make_policy
    from vlakit.training import setup
    from vlakit.training.metrics import check_wandb
    from vlakit.training.trainer import Trainer

    assert flags.policy is not None
    check_wandb(flags)
    device = resolve_device(flags.policy.device)
    seed = setup.seed_everything(flags.seed)
    torch.backends.cudnn.deterministic = flags.cudnn_deterministic
    torch.backends.cudnn.benchmark = not flags.cudnn_deterministic
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else "highest")
    data = setup.open_data(flags, vars(flags.policy)["chunk_size"])
    config = setup.fit_config(flags.policy, data.features, device)
    processors = setup.processors_for(config, data.stats, flags.rename_map, resume=flags.resume)
    policy = make_policy(config)
    flags = dataclasses.replace(flags, policy=policy.config, seed=seed)
    output_dir = flags.output_path(datetime.now())
    if rollouts is None and flags.env is not None and flags.env_eval_freq > 0:
        rollouts = _simulator_rollouts(flags, config, output_dir)
    trainer = Trainer(
        flags, policy, processors, data, output_dir, rollouts=rollouts, console=console
    )
    if flags.resume:
        assert config.pretrained_path is not None
        pretrained = Path(config.pretrained_path)
        assert pretrained.name == PRETRAINED_MODEL, pretrained
        trainer.resume(pretrained.resolve().parent)
    return trainer


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


def _announce(flags: TrainFlags, console: Console) -> None:
    assert flags.scheduler is not None
    notice = zero_rate_notice(
        flags.scheduler, flags.steps, is_preset=flags.use_policy_training_preset
    )
    if notice:
        console.print(f"[bold yellow]warning:[/] {notice}", highlight=False, soft_wrap=True)
    if flags.dataset.cache_frames and flags.num_workers > 0:
        console.print("all frames are kept in memory, so no worker processes are started")
    console.print(
        f"{flags.name()}: {flags.steps:,} steps of {flags.batch_size} samples of "
        f"{flags.dataset.repo_id} -> {flags.output_dir}",
        highlight=False,
        soft_wrap=True,
    )


def _how_to_go_on(trainer: Trainer) -> str:
    from vlakit.checkpoints.run_folder import PRETRAINED_MODEL

    if trainer.last_checkpoint is None:
        return f"stopped after step {trainer.done}; no checkpoint was written yet"
    path = trainer.last_checkpoint / PRETRAINED_MODEL / TRAIN_CONFIG
    return f"stopped after step {trainer.done}; go on with --resume=true --config_path={path}"


def _simulator_rollouts(flags: TrainFlags, config: PolicyConfig, output_dir: Path) -> Rollouts:
    """Return in-training evaluation in the simulator of `--env`.

    Raises:
        VlakitError: The simulator's cameras, state or action are not the policy's.
    """
    from vlakit.cli.evaluate import training_rollouts
    from vlakit.evaluation.planner import check_fit

    assert flags.env is not None
    flags.env.task_list()
    check_fit(config, flags.env, flags.rename_map)
    return training_rollouts(flags, output_dir)


def _push(trainer: Trainer, console: Console) -> None:
    from vlakit.checkpoints.hub import push_folder
    from vlakit.checkpoints.run_folder import PRETRAINED_MODEL

    policy = trainer.flags.policy
    assert policy is not None
    assert policy.repo_id is not None
    if trainer.last_checkpoint is None:
        raise ConfigError(
            "--save_checkpoint=false leaves nothing to push: give --policy.push_to_hub=false, or "
            "let checkpoints be written."
        )
    address = push_folder(
        trainer.last_checkpoint / PRETRAINED_MODEL, policy.repo_id, private=policy.private
    )
    console.print(f"pushed: {address}", highlight=False, soft_wrap=True)


def decode_train_config(content: dict[str, Any]) -> TrainFlags:
    """Return the flags stored in a `train_config.json`, LeRobot's or ours."""
    register_configs()
    return decode(TrainFlags, take_out_not_built(content), source=TRAIN_CONFIG)
