# SPDX-License-Identifier: Apache-2.0
"""Flags of `vlakit train`: LeRobot 0.6.1's names and defaults, and a few of our own.

`train_config.json` holds LeRobot's keys only, since its parser refuses any other; ours stand beside
it in `vlakit_config.json`. No torch here: `--help` must be quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from vlakit.config import encode
from vlakit.datasets.config import DatasetConfig
from vlakit.environments.config import EnvConfig, RolloutConfig
from vlakit.errors import ConfigError
from vlakit.policies.config import PolicyConfig
from vlakit.training.lerobot_keys import LEROBOT_ONLY, OWN_KEYS, SHARED_ENV_KEYS
from vlakit.training.optimizer_config import OptimizerConfig, SchedulerConfig


@dataclass(frozen=True, kw_only=True)
class TrainingRolloutConfig(RolloutConfig):
    """Rollouts in a simulator while training; `--env.type` switches them on."""

    recording: bool = False
    """Record rollouts as a dataset. Not supported yet."""
    recording_repo_id: str | None = None
    """Hub id for recorded rollouts. Not supported yet."""
    recording_private: bool = False
    """Whether recorded rollouts are private on the hub. Not supported yet."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recording or self.recording_repo_id or self.recording_private:
            raise ConfigError(
                "--eval.recording is not supported yet; leave the --eval.recording* flags out."
            )


@dataclass(frozen=True, kw_only=True)
class WandBConfig:
    """Logging to Weights & Biases, beside the log file that is always written."""

    enable: bool = False
    """Send metrics to wandb; the package must be installed."""
    disable_artifact: bool = False
    """Keep checkpoints out of wandb. They always stay out."""
    project: str = "lerobot"
    """Project to log to."""
    entity: str | None = None
    """User or team."""
    notes: str | None = None
    """Free text shown with the run."""
    run_id: str | None = None
    """Id of a run to continue."""
    mode: Literal["online", "offline", "disabled"] | None = None
    """Where metrics go; null is online."""
    add_tags: bool = True
    """Tag the run with policy, dataset and seed."""


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """A moving average of the weights, saved as `pretrained_model_ema/` beside the weights."""

    enable: bool = False
    """Keep the average; in-training rollouts then use it."""
    decay: float | None = None
    """Share of the old average kept per step; null warms up as 1-(1+step)^-0.75, up to 0.9999."""

    def __post_init__(self) -> None:
        if self.decay is not None and not 0.0 <= self.decay < 1.0:
            raise ConfigError(f"--ema.decay={self.decay} must be in [0, 1), such as 0.999.")


@dataclass(frozen=True, kw_only=True)
class AcceleratorConfig:
    """How the steps are computed: the part of LeRobot 0.6.2's group that is built."""

    mixed_precision: Literal["no", "bf16"] | None = None
    """bf16 computes products in bfloat16, also over float32 weights (--policy.dtype=float32), whose
    updates then stay float32; no takes the weights' own type; null is bf16 with
    --policy.dtype=bfloat16 and no without, as in LeRobot 0.6.1."""


@dataclass(frozen=True, kw_only=True)
class TrainFlags:
    """Everything `vlakit train` takes."""

    dataset: DatasetConfig
    """The data."""
    env: EnvConfig | None = None
    """Simulator for rollouts while training; null for none."""
    policy: PolicyConfig | None = None
    """The policy to train: a type for a new one, or --policy.path for a checkpoint."""
    output_dir: Path | None = None
    """Where everything goes; must not exist yet. Default outputs/train/<date>/<time>_<job_name>."""
    job_name: str | None = None
    """Name of the run; default the policy's type, with the simulator's before it."""
    resume: bool = False
    """Go on from the checkpoint that --config_path names."""
    seed: int | None = 1000
    """Seed of weights, order of samples, image changes, noise and rollouts; null draws one."""
    cudnn_deterministic: bool = False
    """Deterministic cuDNN kernels, 10 to 20 percent slower."""
    num_workers: int = 4
    """Processes that read and decode data; 0 reads in the main process."""
    batch_size: int = 8
    """Samples per step."""
    prefetch_factor: int = 4
    """Batches each worker reads ahead."""
    persistent_workers: bool = True
    """Workers live as long as the run, whatever this says: there is one pass over the loader."""
    dataloader_multiprocessing_context: Literal["spawn", "fork", "forkserver"] | None = "spawn"
    """How workers are started; null is the platform's default."""
    steps: int = 100_000
    """Optimiser steps in all, those before a resume included."""
    env_eval_freq: int = 20_000
    """Rollouts every so many steps and at the end; 0 for none."""
    log_freq: int = 200
    """A log line every so many steps and at the end; 0 for the end only."""
    eval_steps: int = 0
    """Loss on the held-out episodes every so many steps; needs --dataset.eval_split. 0 for none."""
    max_eval_samples: int = 0
    """At most so many held-out samples, spread evenly over them; 0 for all."""
    tolerance_s: float = 1e-4
    """How far (s) a video frame may lie from the time asked for."""
    save_checkpoint: bool = True
    """Write checkpoints."""
    save_freq: int = 20_000
    """A checkpoint every so many steps and at the end; 0 for the end only."""
    use_policy_training_preset: bool = True
    """Take optimiser and schedule from the policy's settings, not --optimizer and --scheduler."""
    optimizer: OptimizerConfig | None = None
    """The optimiser, without the preset."""
    scheduler: SchedulerConfig | None = None
    """The learning-rate schedule, without the preset."""
    eval: TrainingRolloutConfig = field(default_factory=TrainingRolloutConfig)
    """Rollouts while training."""
    wandb: WandBConfig = field(default_factory=WandBConfig)
    """Weights & Biases."""
    rename_map: dict[str, str] = field(default_factory=dict)
    """Dataset's names to the policy's, as {"observation.image": "observation.images.top"}."""
    ema: EmaConfig = field(default_factory=EmaConfig)
    """Moving average of the weights (LeRobot 0.6.2's flags)."""
    accelerator: AcceleratorConfig = field(default_factory=AcceleratorConfig)
    """How the steps are computed (LeRobot 0.6.2's flags)."""
    fused_optimizer: bool | None = None
    """Update the weights by one kernel; null does so where there is one, on a CPU and CUDA."""
    profile: bool = False
    """Say where the time of the first steps goes, on the screen and in profile.json."""
    profile_steps: int = 10
    """Steps that --profile looks at, after three that warm up."""

    def __post_init__(self) -> None:
        self._check_counts()
        if self.policy is None:
            raise ConfigError(
                "no policy is given: add --policy.type=eo1 for a new one or "
                "--policy.path=<checkpoint> to start from one."
            )
        if self.policy.use_peft:
            raise ConfigError(
                "--policy.use_peft=true is not supported yet: give a checkpoint with whole weights."
            )
        if self.policy.weight_quantization != "none":
            raise ConfigError(
                f"--policy.weight_quantization={self.policy.weight_quantization} is for "
                "prediction: whole numbers cannot be trained. Leave it out."
            )
        if self.policy.use_amp:
            raise ConfigError(
                "--policy.use_amp=true would be ignored in training: leave it out, and give "
                "--accelerator.mixed_precision=bf16."
            )
        if self.policy.push_to_hub and (self.policy.tags or self.policy.license):
            raise ConfigError(
                "--policy.tags and --policy.license are not written to the hub yet: leave them "
                "out and set them on the repository's page."
            )
        if self.eval_steps > 0 and self.dataset.eval_split == 0.0:
            raise ConfigError(
                f"--eval_steps={self.eval_steps} needs held-out episodes: "
                "add --dataset.eval_split=0.1, say."
            )
        if self.policy.push_to_hub and not self.policy.repo_id:
            raise ConfigError(
                "--policy.push_to_hub is true (the default) and --policy.repo_id is missing: add "
                "--policy.push_to_hub=false or --policy.repo_id=<user>/<name>."
            )
        if not self.use_policy_training_preset and not (self.optimizer and self.scheduler):
            raise ConfigError(
                "--use_policy_training_preset=false needs both --optimizer.type=... and "
                "--scheduler.type=...; one is missing."
            )

    def _check_counts(self) -> None:
        least = {
            "steps": 1,
            "batch_size": 1,
            "num_workers": 0,
            "prefetch_factor": 1,
            "profile_steps": 1,
        }
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"--{name}={getattr(self, name)} must be {minimum} or more.")
        if self.tolerance_s <= 0:
            raise ConfigError(f"--tolerance_s={self.tolerance_s} must be positive (seconds).")

    def name(self) -> str:
        """Return the job's name: given, or made of the simulator's and the policy's."""
        if self.job_name:
            return self.job_name
        kinds = [encode(part)["type"] for part in (self.env, self.policy) if part is not None]
        return "_".join(kinds)

    def output_path(self, now: datetime) -> Path:
        """Return the output folder: given, or named after the time and the job."""
        if self.output_dir is not None:
            return self.output_dir
        return Path("outputs/train") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{self.name()}"


def split_by_reader(flags: TrainFlags) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return `train_config.json` (LeRobot's keys) and `vlakit_config.json` (ours)."""
    shared = encode(flags)
    if flags.policy is not None:
        shared["policy"] = flags.policy.to_json()
    own: dict[str, Any] = {}
    if run_fields := flags.policy.run_settings() if flags.policy is not None else {}:
        own["policy"] = run_fields
    for name in OWN_KEYS:
        _move(shared, own, list(name.split(".")))
    if shared["env"] is not None:
        own["env"] = shared["env"]
        shared["env"] = {key: own["env"][key] for key in SHARED_ENV_KEYS if key in own["env"]}
    return shared | LEROBOT_ONLY, own


def _move(source: dict[str, Any], target: dict[str, Any], keys: list[str]) -> None:
    for key in keys[:-1]:
        source, target = source[key], target.setdefault(key, {})
    target[keys[-1]] = source.pop(keys[-1])
