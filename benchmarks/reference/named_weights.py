# SPDX-License-Identifier: Apache-2.0
"""Random weights that follow from a tensor's name; both sides run this file.

So two processes have equal weights, at any size, without a checkpoint between them: 6 GB are
neither written nor read, and nothing is drawn on the CPU for a network on a GPU.
"""

from __future__ import annotations

import zlib

import torch
from torch import nn

STD = 0.02
"""Of matrices and embeddings, as Hugging Face draws them."""


@torch.no_grad()
def fill_by_name(network: nn.Module) -> dict[str, float]:
    """Set every parameter in place; returns how many numbers there are, and their sum.

    Matrices are normal around 0, scales of norms around 1, biases around 0. Numbers are drawn in
    float32 on the parameter's device, and rounded to its type.
    """
    total, count = 0.0, 0
    for name, value in network.named_parameters():
        # Newer versions of transformers have dropped this level of SigLIP's names.
        name = name.replace("vision_tower.vision_model.", "vision_tower.")
        generator = torch.Generator(value.device).manual_seed(zlib.crc32(name.encode()))
        drawn = torch.empty(value.shape, dtype=torch.float32, device=value.device)
        drawn.normal_(0.0, STD, generator=generator)
        if value.ndim == 1 and name.endswith("weight"):
            drawn += 1.0
        value.copy_(drawn)
        total, count = total + float(drawn.sum(dtype=torch.float64)), count + value.numel()
    return {"parameters": count, "sum": total}
