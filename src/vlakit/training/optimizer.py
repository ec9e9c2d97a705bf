# SPDX-License-Identifier: Apache-2.0
"""The optimiser that a configuration describes: one parameter group with every parameter.

# Parity: norms, biases and embeddings are decayed like any other weight, as in LeRobot.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from vlakit.training.optimizer_config import AdamConfig, AdamWConfig, OptimizerConfig, SGDConfig


def has_fused_update(device: torch.device) -> bool:
    """Return whether torch's optimisers have such a kernel there."""
    return device.type in ("cpu", "cuda")


def make_optimizer(
    config: OptimizerConfig,
    parameters: Iterable[nn.Parameter],
    *,
    fused: bool = False,
) -> torch.optim.Optimizer:
    """Return the optimiser of `config` over the parameters that can be trained.

    Args:
        config: One of the registered optimisers.
        parameters: In the order of the model; frozen ones are left out.
        fused: One kernel for all of an update: the same result up to rounding, without passes over
            memory and copies of the moments that torch's plain loop makes.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    settings = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": fused or None}
    if isinstance(config, SGDConfig):
        return torch.optim.SGD(
            trainable,
            **settings,
            momentum=config.momentum,
            dampening=config.dampening,
            nesterov=config.nesterov,
        )
    assert isinstance(config, AdamWConfig | AdamConfig), config
    kind = torch.optim.AdamW if isinstance(config, AdamWConfig) else torch.optim.Adam
    return kind(trainable, **settings, betas=config.betas, eps=config.eps)
