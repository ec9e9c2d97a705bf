# SPDX-License-Identifier: Apache-2.0
"""A very small network of pi0-FAST and inputs for it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vlakit.policies.backbones.paligemma_config import PaliGemmaSizes
from vlakit.policies.pi0_fast.config import PI0FastConfig
from vlakit.policies.pi0_fast.model import PI0FastModel
from vlakit.policies.pi0_fast.sequence import PI0FastInputs, Prefix

VOCABULARY, SIDE = 50, 8

PALIGEMMA_CONFIG: dict[str, Any] = {
    "text_config": {
        "vocab_size": VOCABULARY,
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 8,
    },
    "vision_config": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 4,
        "image_size": SIDE,
    },
}
PATCHES = (SIDE // 4) ** 2


def small_model(dtype: torch.dtype = torch.float32, **changes: Any) -> PI0FastModel:
    """Return a network whose weights are large enough for errors to show."""
    config = PI0FastConfig(device="cpu", image_resolution=(SIDE, SIDE), **changes)
    model = PI0FastModel(config, PaliGemmaSizes.from_json(PALIGEMMA_CONFIG), dtype)
    model.init_weights()
    with torch.no_grad():
        model.paligemma.lm_head.weight.mul_(10)
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(torch.randn(parameter.shape) * 0.2)
    return model


def small_inputs(image_mask: list[list[bool]], lengths: list[int], padding: int) -> PI0FastInputs:
    """Return random images and prompts.

    Args:
        image_mask: rows x cameras.
        lengths: of the prompts.
        padding: columns after the longest.
    """
    mask = torch.tensor(image_mask)
    prompt = torch.arange(max(lengths) + padding) < torch.tensor(lengths)[:, None]
    return PI0FastInputs(
        images=torch.rand(*mask.shape, 3, SIDE, SIDE) * 2 - 1,
        image_mask=mask,
        prompt_ids=torch.randint(0, VOCABULARY, prompt.shape),
        prompt_mask=prompt,
    )


def only_row(inputs: PI0FastInputs, row: int) -> PI0FastInputs:
    """Return one row of a batch without its padding and without cameras that do not exist."""
    cameras, real = inputs.image_mask[row], inputs.prompt_mask[row]
    return PI0FastInputs(
        images=inputs.images[row : row + 1, cameras],
        image_mask=inputs.image_mask[row : row + 1, cameras],
        prompt_ids=inputs.prompt_ids[row : row + 1, real],
        prompt_mask=inputs.prompt_mask[row : row + 1, real],
    )


def small_actions(lengths: list[int], padding: int) -> tuple[Tensor, Tensor]:
    """Return ids and mask of action tokens."""
    mask = torch.arange(max(lengths) + padding) < torch.tensor(lengths)[:, None]
    return torch.randint(0, VOCABULARY, mask.shape), mask


@torch.no_grad()
def forward_tokens(
    model: PI0FastModel, inputs: PI0FastInputs | Prefix, ids: Tensor, *, causal_from: int
) -> Tensor:
    """Run everything at once, without a cache: what decoding step by step has to equal.

    Returns:
        (batch, n, width) hidden states of `ids`, (batch, n), which follow the prompt.
    """
    prefix, suffix = model._embed(inputs, ids)
    is_real = F.pad(prefix.is_real, (0, ids.shape[1]), value=True)
    columns = torch.arange(prefix.length, is_real.shape[1]).expand(ids.shape[0], -1)
    return model._hidden(prefix, suffix, is_real, prefix.length + causal_from, columns)
