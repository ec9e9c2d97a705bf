# SPDX-License-Identifier: Apache-2.0
"""A moving average of the weights, kept in float32 whatever the weights' own dtype."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vlakit.errors import CheckpointError

MAX_DECAY = 0.9999
WARMUP_POWER = 0.75


class MovingAverage:
    """average <- decay * average + (1 - decay) * weight, after every step."""

    def __init__(self, model: nn.Module, decay: float | None) -> None:
        """Start from the model's weights.

        Args:
            model: Its trainable parameters are averaged; the others never change.
            decay: Share of the old average; None rises as 1 - (1 + step)^-0.75 up to 0.9999.
        """
        self.decay = decay
        self.num_updates = 0
        self.average = {
            name: parameter.detach().to(torch.float32, copy=True)
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }

    def current_decay(self) -> float:
        """Return the share of the old average in the next update."""
        if self.decay is not None:
            return self.decay
        return min(MAX_DECAY, 1 - (1 + self.num_updates) ** -WARMUP_POWER)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the model's present weights in."""
        share = 1 - self.current_decay()
        for name, parameter in model.named_parameters():
            if name in self.average:
                self.average[name].lerp_(parameter.detach().float(), share)
        self.num_updates += 1

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averaged weights for a while."""
        parameters = dict(model.named_parameters())
        own = {name: parameters[name].detach().clone() for name in self.average}
        try:
            _assign(parameters, self.average)
            yield
        finally:
            _assign(parameters, own)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average and the number of updates, as tensors."""
        return {**self.average, "num_updates": torch.tensor(self.num_updates)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a saved average.

        Raises:
            CheckpointError: It belongs to other weights.
        """
        saved = dict(state)
        num_updates = saved.pop("num_updates", None)
        shapes, own = ({k: v.shape for k, v in d.items()} for d in (saved, self.average))
        if num_updates is None or shapes != own:
            raise CheckpointError(
                "the saved moving average belongs to other weights than this policy's; resume with "
                "the policy settings of the checkpoint, or with --ema.enable=false."
            )
        for name, value in saved.items():
            self.average[name].copy_(value)
        self.num_updates = int(num_updates)


@torch.no_grad()
def _assign(parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        parameters[name].copy_(value)
