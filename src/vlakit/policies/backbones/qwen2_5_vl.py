# SPDX-License-Identifier: Apache-2.0
"""Qwen2.5-VL: vision tower, language model and output head under Hugging Face's tensor names."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from vlakit.policies.backbones.attention import AttentionKind
from vlakit.policies.backbones.block_execution import Recompute, compile_block
from vlakit.policies.backbones.layers import RMSNorm
from vlakit.policies.backbones.qwen2_5_vl_config import Qwen25VLSizes
from vlakit.policies.backbones.qwen2_5_vl_text import TextModel
from vlakit.policies.backbones.qwen2_5_vl_vision import VisionTower


class Qwen25VLModel(nn.Module):
    """The two towers, without the output head."""

    def __init__(self, sizes: Qwen25VLSizes, kind: AttentionKind) -> None:
        super().__init__()
        self.visual = VisionTower(sizes.vision, kind)
        self.language_model = TextModel(sizes.text, kind)


class Qwen25VL(nn.Module):
    """The network of `Qwen2_5_VLForConditionalGeneration`, tensor for tensor.

    `lm_head` is here so that checkpoints are complete; nothing that robots need runs it.
    """

    def __init__(self, sizes: Qwen25VLSizes, kind: AttentionKind) -> None:
        super().__init__()
        self.model = Qwen25VLModel(sizes, kind)
        self.lm_head = nn.Linear(sizes.text.hidden_size, sizes.text.vocab_size, bias=False)
        self.sizes = sizes
        self.tie_weights()

    def tie_weights(self) -> None:
        """Let embeddings and output head share one parameter, where the configuration says so."""
        if self.sizes.tie_word_embeddings:
            self.model.language_model.embed_tokens.weight = self.lm_head.weight

    def set_recompute(self, kind: Recompute) -> None:
        """Choose the activation checkpointing of both towers, block by block."""
        self.model.visual.recompute = kind
        self.model.language_model.recompute = kind

    def compile_blocks(self, mode: str) -> None:
        """Compile the layers of both towers with torch.compile, at their first use."""
        for layer in (*self.model.visual.blocks, *self.model.language_model.layers):
            compile_block(layer, mode)

    def embed_images(self, patches: Tensor, image_grid_thw: Tensor) -> Tensor:
        """Return one embedding per merged patch.

        Args:
            patches: (patches, patch_dim) of all images.
            image_grid_thw: (images, 3) frames, patch rows, patch columns.

        Returns:
            (image tokens, hidden_size).
        """
        grids = [
            (rows, columns)
            for frames, rows, columns in image_grid_thw.tolist()
            for _ in range(frames)
        ]
        return self.model.visual(patches, grids)

    def init_weights(self) -> None:
        """Draw fresh weights from torch's global generator, as Hugging Face initialises them."""
        self.model.visual.apply(_initializer(self.sizes.vision.initializer_range))
        self.model.language_model.apply(_initializer(self.sizes.text.initializer_range))
        if not self.sizes.tie_word_embeddings:
            self.lm_head.apply(_initializer(self.sizes.text.initializer_range))


def _initializer(std: float) -> Callable[[nn.Module], None]:
    """Return a function that fills one module: normal weights, zero biases, unit norms."""

    def initialize(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Conv3d | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)

    return initialize
