# SPDX-License-Identifier: Apache-2.0
"""Learning rate per step, as LeRobot computes it.

    multiplier = schedule_multiplier(config, steps)      # of the peak rate, for every step from 0
    scheduler = make_scheduler(optimizer, config, steps)

Step s is the s-th optimiser step counted from 0. The cosine decay counts from step 0, not from the
end of the warm-up, so there is a small drop at the end of the warm-up. When the run has fewer steps
than the decay, warm-up and decay are shrunk to fit. Source: lerobot/optim/schedulers.py@0.6.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from vlakit.training.optimizer_config import (
    ConstantConfig,
    CosineAnnealingConfig,
    CosineDecayConfig,
    SchedulerConfig,
)

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

Multiplier = Callable[[int], float]


def schedule_multiplier(config: SchedulerConfig, num_steps: int) -> Multiplier:
    """Return the function from step to learning rate, relative to the optimiser's `lr`.

    Args:
        config: One of the registered schedules.
        num_steps: Steps of the whole run.
    """
    if isinstance(config, CosineDecayConfig):
        return _cosine_decay(config, num_steps)
    warmup = config.num_warmup_steps
    if isinstance(config, CosineAnnealingConfig):

        def annealing(step: int) -> float:
            if step < warmup:
                return step / max(1, warmup)
            progress = (step - warmup) / max(1, num_steps - warmup)
            return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))

        return annealing
    assert isinstance(config, ConstantConfig), config
    return lambda step: step / max(1, warmup) if step < warmup else 1.0


def _cosine_decay(config: CosineDecayConfig, num_steps: int) -> Multiplier:
    warmup, decay = scaled_lengths(config, num_steps)
    floor = config.decay_lr / config.peak_lr

    def multiplier(step: int) -> float:
        if step < warmup:
            start = 1 / (warmup + 1)
            return start if step <= 0 else (start - 1) * (1 - step / warmup) + 1
        cosine = 0.5 * (1 + math.cos(math.pi * min(step, decay) / decay))
        return (1 - floor) * cosine + floor

    return multiplier


def scaled_lengths(config: CosineDecayConfig, num_steps: int) -> tuple[int, int]:
    """Return warm-up and decay in steps, shrunk when the run is shorter than the decay."""
    if num_steps >= config.num_decay_steps:
        return config.num_warmup_steps, config.num_decay_steps
    return int(config.num_warmup_steps * (num_steps / config.num_decay_steps)), num_steps


def zero_rate_notice(config: SchedulerConfig, num_steps: int, *, is_preset: bool) -> str | None:
    """Return a warning when the rate is 0 before the last step, with the flag to change.

    Args:
        config: The schedule.
        num_steps: Steps of the whole run.
        is_preset: Whether the schedule comes from the policy's settings; decides the flag's name.
    """
    if not isinstance(config, CosineDecayConfig) or config.decay_lr > 0:
        return None
    first = scaled_lengths(config, num_steps)[1]
    if first >= num_steps:
        return None
    flag = "policy.scheduler_decay" if is_preset else "scheduler.num_decay"
    floor = "policy.scheduler_decay_lr" if is_preset else "scheduler.decay_lr"
    return (
        f"the learning rate is 0 from step {first:,} on: {num_steps - first:,} of {num_steps:,} "
        f"steps would change nothing. Give --{flag}_steps={num_steps} (or --{floor} above 0, or "
        f"--steps={first})."
    )


def make_scheduler(optimizer: Optimizer, config: SchedulerConfig, num_steps: int) -> LambdaLR:
    """Return torch's scheduler of this schedule; call `step()` after each optimiser step."""
    from torch.optim.lr_scheduler import LambdaLR

    return LambdaLR(optimizer, schedule_multiplier(config, num_steps))
