# SPDX-License-Identifier: Apache-2.0
"""`vlakit train`: from flags to a trained policy, or from a checkpoint on.

Everything that can be wrong is looked at before the output folder is made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from vlakit.checkpoints.run_folder import PRETRAINED_MODEL, TRAIN_CONFIG
from vlakit.cli.train_flags import read_flags
from vlakit.errors import ConfigError
from vlakit.training.config import TrainFlags
from vlakit.training.schedule import zero_rate_notice

if TYPE_CHECKING:
    from rich.console import Console

    from vlakit.policies.config import PolicyConfig
    from vlakit.training.trainer import Rollouts, Trainer


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    train(read_flags(argv))
    return 0


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
    _announce_frame_cache(trainer, console)
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
    chunk_size: int = vars(flags.policy)["chunk_size"]
    data = setup.open_data(flags, chunk_size)
    config = setup.fit_config(flags.policy, data.features, device)
    config = setup.with_action_names(config, data.train.features)
    data = setup.with_relative_stats(config, data, flags.rename_map)
    processors = setup.processors_for(config, data.stats, flags.rename_map, resume=flags.resume)
    for note in setup.check_data(config, data.train, processors[0], chunk_size):
        _warn(note, console)
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


def _announce(flags: TrainFlags, console: Console) -> None:
    assert flags.scheduler is not None
    notice = zero_rate_notice(
        flags.scheduler, flags.steps, is_preset=flags.use_policy_training_preset
    )
    if notice:
        _warn(notice, console)
    if flags.dataset.cache_frames and flags.num_workers > 0:
        console.print("all frames are kept in memory, so no worker processes are started")
    console.print(
        f"{flags.name()}: {flags.steps:,} steps of {flags.batch_size} samples of "
        f"{flags.dataset.repo_id} -> {flags.output_dir}",
        highlight=False,
        soft_wrap=True,
    )


def _announce_frame_cache(trainer: Trainer, console: Console) -> None:
    cache = trainer.data.train.frame_cache
    if cache is None:
        return
    line = f"frames come from {cache['folder']} ({sum(cache['bytes'].values()) / 1e9:.2f} GB)"
    if "mean_error" in cache:
        line += (
            f", JPEG of quality {cache['quality']}: mean error {cache['mean_error']:.2f}, largest "
            f"{cache['largest_error']} (of 255)"
        )
    console.print(line, highlight=False, soft_wrap=True)


def _warn(text: str, console: Console | None) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = console or Console(stderr=True)
    console.print(f"[bold yellow]warning:[/] {escape(text)}", highlight=False, soft_wrap=True)


def _how_to_go_on(trainer: Trainer) -> str:

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
    from vlakit.hub import push_folder

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
