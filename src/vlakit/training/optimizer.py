# SPDX-License-Identifier: Apache-2.0
"""The optimiser that a configuration describes: one parameter group with every parameter.

# Parity: norms, biases and embeddings are decayed like any other weight, as in LeRobot.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from vlakit.training.optimizer_config import AdamConfig, AdamWConfig, OptimizerConfig, SGDConfig


def make_optimizer(
    config: OptimizerConfig,
    parameters: Iterable[nn.Parameter],
    *,
    fused: bool | None = None,
) -> torch.optim.Optimizer:
    """Return the optimiser of `config` over the parameters that can be trained.

    Args:
        config: One of the registered optimisers.
        parameters: In the order of the model; frozen ones are left out.
        fused: One kernel for all of an update, with the same result up to rounding. None chooses
            it on CUDA, where it saves launches and passes over the moments; a CPU keeps the plain
            loop, whose numbers are LeRobot's to the bit.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    if fused is None:
        fused = any(parameter.is_cuda for parameter in trainable)
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
