# SPDX-License-Identifier: Apache-2.0
"""Flags of `--optimizer.*` and `--scheduler.*`, and the presets of a policy's settings."""

from __future__ import annotations

from dataclasses import dataclass

import draccus

from vlakit.errors import ConfigError
from vlakit.policies.config import PolicyConfig


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(draccus.ChoiceRegistry):
    """What every optimiser has."""

    lr: float = 1e-3
    """Peak learning rate."""
    weight_decay: float = 0.0
    """Weight decay."""
    grad_clip_norm: float = 10.0
    """Gradients are scaled down to this norm; 0 for never."""

    def __post_init__(self) -> None:
        if self.lr < 0 or self.weight_decay < 0 or self.grad_clip_norm < 0:
            raise ConfigError(
                f"lr={self.lr}, weight_decay={self.weight_decay} and grad_clip_norm="
                f"{self.grad_clip_norm} of the optimizer must not be negative."
            )


@OptimizerConfig.register_subclass("adamw")
@dataclass(frozen=True, kw_only=True)
class AdamWConfig(OptimizerConfig):
    """AdamW."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the two moments."""
    eps: float = 1e-8
    """Added to the denominator."""
    weight_decay: float = 1e-2
    """Weight decay, apart from the gradient."""


@OptimizerConfig.register_subclass("adam")
@dataclass(frozen=True, kw_only=True)
class AdamConfig(OptimizerConfig):
    """Adam."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the two moments."""
    eps: float = 1e-8
    """Added to the denominator."""


@OptimizerConfig.register_subclass("sgd")
@dataclass(frozen=True, kw_only=True)
class SGDConfig(OptimizerConfig):
    """Stochastic gradient descent."""

    momentum: float = 0.0
    """Momentum."""
    dampening: float = 0.0
    """Dampening of the momentum."""
    nesterov: bool = False
    """Nesterov's momentum."""


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig(draccus.ChoiceRegistry):
    """What every schedule has."""

    num_warmup_steps: int
    """Steps over which the learning rate rises."""


@SchedulerConfig.register_subclass("cosine_decay_with_warmup")
@dataclass(frozen=True, kw_only=True)
class CosineDecayConfig(SchedulerConfig):
    """Cosine from the peak to `decay_lr`; shrunk when the run is shorter than the decay."""

    num_warmup_steps: int
    """Steps over which the learning rate rises."""
    num_decay_steps: int
    """Step at which `decay_lr` is reached and kept."""
    peak_lr: float
    """Highest learning rate."""
    decay_lr: float
    """Learning rate at the end."""

    def __post_init__(self) -> None:
        if self.num_warmup_steps < 0 or self.num_decay_steps < 1:
            raise ConfigError(
                f"the schedule's warm-up of {self.num_warmup_steps} steps must not be negative and "
                f"its decay of {self.num_decay_steps} steps must be 1 or more."
            )
        if self.peak_lr <= 0 or self.decay_lr < 0:
            raise ConfigError(
                f"the schedule's peak_lr={self.peak_lr} must be positive and its "
                f"decay_lr={self.decay_lr} 0 or more."
            )


@SchedulerConfig.register_subclass("cosine_annealing_with_warmup")
@dataclass(frozen=True, kw_only=True)
class CosineAnnealingConfig(SchedulerConfig):
    """Linear rise, then a cosine to 0 over the remaining steps."""

    num_warmup_steps: int
    """Steps over which the learning rate rises."""


@SchedulerConfig.register_subclass("constant_with_warmup")
@dataclass(frozen=True, kw_only=True)
class ConstantConfig(SchedulerConfig):
    """Linear rise, then constant."""

    num_warmup_steps: int = 1000
    """Steps over which the learning rate rises."""


def preset_optimizer(policy: PolicyConfig) -> AdamWConfig:
    """Return the optimiser that `--policy.optimizer_*` describes."""
    settings = vars(policy)
    return AdamWConfig(
        lr=settings["optimizer_lr"],
        betas=tuple(settings["optimizer_betas"]),
        eps=settings["optimizer_eps"],
        weight_decay=settings["optimizer_weight_decay"],
        grad_clip_norm=settings["optimizer_grad_clip_norm"],
    )


def preset_scheduler(policy: PolicyConfig) -> CosineDecayConfig:
    """Return the schedule that `--policy.scheduler_*` and `--policy.optimizer_lr` describe."""
    settings = vars(policy)
    return CosineDecayConfig(
        num_warmup_steps=settings["scheduler_warmup_steps"],
        num_decay_steps=settings["scheduler_decay_steps"],
        peak_lr=settings["optimizer_lr"],
        decay_lr=settings["scheduler_decay_lr"],
    )
