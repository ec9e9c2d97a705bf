# SPDX-License-Identifier: Apache-2.0
"""PaliGemma: SigLIP, a projector, Gemma and an output head under Hugging Face's tensor names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlakit.policies.backbones.block_execution import Recompute, compile_block
from vlakit.policies.backbones.gemma import GemmaModel, GemmaRMSNorm
from vlakit.policies.backbones.paligemma_config import PaliGemmaSizes
from vlakit.policies.backbones.siglip import SiglipTower


class Projector(nn.Module):
    """From the vision tower's width to the language model's."""

    def __init__(self, sizes: PaliGemmaSizes) -> None:
        super().__init__()
        self.linear = nn.Linear(sizes.vision.hidden_size, sizes.text.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., text hidden_size) from (..., vision hidden_size)."""
        return self.linear(x)


class PaliGemmaModel(nn.Module):
    """The two towers, without the output head."""

    def __init__(self, sizes: PaliGemmaSizes) -> None:
        super().__init__()
        self.vision_tower = SiglipTower(sizes.vision)
        self.multi_modal_projector = Projector(sizes)
        self.language_model = GemmaModel(sizes.text)


class PaliGemma(nn.Module):
    """The network of `PaliGemmaForConditionalGeneration`, tensor for tensor.

    Output head and embedding table are two parameters. PaliGemma ties them, but pi0-FAST's
    checkpoints hold both, and they drift apart in training.
    """

    def __init__(self, sizes: PaliGemmaSizes) -> None:
        super().__init__()
        self.lm_head = nn.Linear(sizes.text.hidden_size, sizes.text.vocab_size, bias=False)
        self.model = PaliGemmaModel(sizes)
        self.sizes = sizes

    @property
    def language_model(self) -> GemmaModel:
        """The language model, without the output head."""
        return self.model.language_model

    def store_in(self, dtype: torch.dtype) -> None:
        """Set the storage type. Vision tower, projector and norms are always float32."""
        self.lm_head.to(dtype)
        self.language_model.embed_tokens.to(dtype)
        for layer in self.language_model.layers:
            layer.get_submodule("self_attn").to(dtype)
            layer.get_submodule("mlp").to(dtype)

    def set_recompute(self, kind: Recompute) -> None:
        """Choose the activation checkpointing of both towers, block by block."""
        self.model.vision_tower.vision_model.recompute = kind
        self.language_model.recompute = kind

    def compile_blocks(self, mode: str) -> None:
        """Compile the layers of both towers with torch.compile, at their first use."""
        vision = self.model.vision_tower.vision_model.encoder.layers
        for layer in (*vision, *self.language_model.layers):
            compile_block(layer, mode)

    def embed_images(self, images: Tensor) -> Tensor:
        """Return one embedding per patch, (images, patches, text hidden_size) float32.

        Args:
            images: (images, 3, side, side) in [-1, 1].
        """
        # Parity: LeRobot divides these by sqrt(2048) and multiplies by it again: no effect.
        return self.model.multi_modal_projector(self.model.vision_tower(images))

    def init_weights(self) -> None:
        """Draw fresh weights from torch's global generator, for training from nothing.

        Every map starts at unit gain (deviation 1/sqrt(inputs)), so that its output is about as
        large as its input whatever the width; Hugging Face's fixed 0.02 would hardly move a narrow
        network. Those that add to the residual stream are smaller by sqrt(2 * depth), which keeps
        the sum of all layers at unit size. Embeddings have unit size after their scaling. The head
        begins at a tenth of unit gain: the first predictions are close to uniform.
        """
        for module in self.modules():
            _init_module(module)
        vision = list(self.model.vision_tower.vision_model.encoder.layers)
        text = list(self.language_model.layers)
        with torch.no_grad():
            for layers, names in (
                (vision, ("self_attn.out_proj", "mlp.fc2")),
                (text, ("self_attn.o_proj", "mlp.down_proj")),
            ):
                for layer in layers:
                    for name in names:
                        layer.get_parameter(f"{name}.weight").mul_((2 * len(layers)) ** -0.5)
            self.lm_head.weight.mul_(0.1)


def _init_module(module: nn.Module) -> None:
    """Fill one module: unit gain, zero biases, norms that leave the scale alone."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
        nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, GemmaRMSNorm):
        nn.init.zeros_(module.weight)
    if isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
