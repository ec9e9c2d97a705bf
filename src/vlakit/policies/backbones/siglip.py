# SPDX-License-Identifier: Apache-2.0
"""SigLIP's vision tower under Hugging Face's tensor names: images in, one vector per patch out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlakit.policies.backbones.attention import attend
from vlakit.policies.backbones.block_execution import Recompute, run_block
from vlakit.policies.backbones.paligemma_config import SiglipSizes


class SiglipEmbeddings(nn.Module):
    """One linear map per patch, plus a learned vector per position."""

    def __init__(self, sizes: SiglipSizes) -> None:
        super().__init__()
        side = sizes.patch_size
        # A convolution in name and shape only: its patches do not overlap.
        self.patch_embedding = nn.Conv2d(sizes.num_channels, sizes.hidden_size, side, side)
        # The plain constructor draws values, which on the meta device loads torch's compiler: 1 s.
        table = torch.empty(sizes.num_patches, sizes.hidden_size)
        self.position_embedding = nn.Embedding.from_pretrained(table, freeze=False)
        self.patch_size = side

    def forward(self, images: Tensor) -> Tensor:
        """Return (images, patches, hidden_size) from (images, channels, side, side)."""
        side, conv = self.patch_size, self.patch_embedding
        patches = images.unflatten(-1, (-1, side)).unflatten(2, (-1, side))
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        embedded = F.linear(patches.to(conv.weight.dtype), conv.weight.flatten(1), conv.bias)
        return embedded + self.position_embedding.weight


class SiglipAttention(nn.Module):
    """Attention among all patches of an image."""

    def __init__(self, sizes: SiglipSizes) -> None:
        super().__init__()
        width = sizes.hidden_size
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.head_dim = sizes.head_dim

    def forward(self, x: Tensor) -> Tensor:
        """Return (images, patches, hidden_size) from the same."""
        q, k, v = (
            project(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(attend(q, k, v, kind="sdpa"))


class SiglipMLP(nn.Module):
    """Two linear maps with a GELU (tanh form) between them."""

    def __init__(self, sizes: SiglipSizes) -> None:
        super().__init__()
        self.fc1 = nn.Linear(sizes.hidden_size, sizes.intermediate_size)
        self.fc2 = nn.Linear(sizes.intermediate_size, sizes.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., hidden_size) from the same."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class SiglipLayer(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, sizes: SiglipSizes) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(sizes.hidden_size, eps=sizes.layer_norm_eps)
        self.self_attn = SiglipAttention(sizes)
        self.layer_norm2 = nn.LayerNorm(sizes.hidden_size, eps=sizes.layer_norm_eps)
        self.mlp = SiglipMLP(sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Return (images, patches, hidden_size) from the same."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class SiglipEncoder(nn.Module):
    """The layers, under the name that the tensors have."""

    def __init__(self, sizes: SiglipSizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(SiglipLayer(sizes) for _ in range(sizes.num_hidden_layers))


class SiglipTransformer(nn.Module):
    """Embeddings, layers and a last norm; no pooling head."""

    def __init__(self, sizes: SiglipSizes) -> None:
        super().__init__()
        self.embeddings = SiglipEmbeddings(sizes)
        self.encoder = SiglipEncoder(sizes)
        self.post_layernorm = nn.LayerNorm(sizes.hidden_size, eps=sizes.layer_norm_eps)
        self.recompute: Recompute = "none"

    def forward(self, images: Tensor) -> Tensor:
        """Return (images, patches, hidden_size) from (images, channels, side, side)."""
        x = self.embeddings(images)
        for layer in self.encoder.layers:
            x = run_block(layer, x, recompute=self.recompute)
        return self.post_layernorm(x)


class SiglipTower(nn.Module):
    """The whole tower. Its tensors lie one name deeper, below `vision_model`."""

    def __init__(self, sizes: SiglipSizes) -> None:
        super().__init__()
        self.vision_model = SiglipTransformer(sizes)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images.

        Args:
            images: (images, channels, side, side), in [-1, 1].

        Returns:
            (images, patches, hidden_size), patches row by row.
        """
        return self.vision_model(images)
