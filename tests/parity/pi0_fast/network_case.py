# SPDX-License-Identifier: Apache-2.0
"""The network of one recorded pi0-FAST case, its inputs as tensors, and what LeRobot made of them.

Images are the recorded preprocessed ones where a case has them.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.fixtures_root import FIXTURE_ROOT
from vlakit.policies.backbones.paligemma_config import PaliGemmaSizes
from vlakit.policies.pi0_fast import PI0FastConfig
from vlakit.policies.pi0_fast.images import fit_images
from vlakit.policies.pi0_fast.model import PI0FastModel
from vlakit.policies.pi0_fast.sequence import PI0FastInputs

LANGUAGE, BOS_ID, BAR = "observation.language", 2, "|"


def hugging_face_config(shrunk: dict[str, Any]) -> dict[str, Any]:
    """Return the sizes that LeRobot was patched to, in Hugging Face's form."""
    gemma = shrunk["gemma"]
    text = {
        "vocab_size": shrunk["vocab_size"],
        "hidden_size": gemma["width"],
        "intermediate_size": gemma["mlp_dim"],
        "num_hidden_layers": gemma["depth"],
        "num_attention_heads": gemma["num_heads"],
        "num_key_value_heads": gemma["num_kv_heads"],
        "head_dim": gemma["head_dim"],
    }
    return {"text_config": text, "vision_config": shrunk["siglip"]}


class NetworkCase:
    """Tensors of one case; some cases share the input files of a neighbour."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = FIXTURE_ROOT / "pi0_fast" / name
        if not self.folder.is_dir():
            pytest.skip(f"the recording {name} is in the full set only")
        self.note = json.loads((self.folder / "case.json").read_text(encoding="utf-8"))
        self.inputs_folder = self.folder / self.note.get("inputs_from", ".")
        self.is_bfloat16 = name.endswith("bf16")

    def tolerance(self, float32: float, bfloat16: float) -> float:
        return bfloat16 if self.is_bfloat16 else float32

    def tensors(self, name: str) -> dict[str, Tensor]:
        own = self.folder / f"{name}.safetensors"
        return load_file(own if own.is_file() else self.inputs_folder / f"{name}.safetensors")

    def json(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))

    @cached_property
    def config(self) -> PI0FastConfig:
        return PI0FastConfig.from_json(self.json("checkpoint/config"))

    def model(self, dtype: str | None = None, **changes: Any) -> PI0FastModel:
        """Return the network with the recorded weights."""
        config = self.config.override(changes)
        sizes = PaliGemmaSizes.from_json(hugging_face_config(self.json("shrunk_sizes")))
        model = PI0FastModel(config, sizes, getattr(torch, dtype or config.dtype))
        weights = self.tensors("checkpoint/model")
        model.load_state_dict({key.removeprefix("model."): w for key, w in weights.items()})
        return model

    def inputs(self, mode: str) -> PI0FastInputs:
        """Return the inputs of 'train' or 'infer'."""
        batch, images = self.tensors(f"{mode}_processed"), self.images
        return PI0FastInputs(
            images=images["preprocessed_images"],
            image_mask=images["image_masks"],
            prompt_ids=batch[f"{LANGUAGE}.tokens"],
            prompt_mask=batch[f"{LANGUAGE}.attention_mask"],
        )

    @cached_property
    def images(self) -> dict[str, Tensor]:
        """Images as the network takes them and which exist; our own where none are recorded."""
        if (self.folder / "debug.safetensors").is_file():
            return self.tensors("debug")
        raw = self.tensors("raw_batch")
        images = torch.stack(
            [
                fit_images(raw[name], *self.config.image_resolution)
                for name in self.config.image_features
            ],
            dim=1,
        )
        mask = torch.ones(images.shape[:2], dtype=torch.bool)
        return {"preprocessed_images": images, "image_masks": mask}

    @cached_property
    def actions(self) -> tuple[Tensor, Tensor]:
        """Ids and mask of the action tokens."""
        batch = self.tensors("train_processed")
        return batch["action.tokens"], batch["action.token_mask"]

    def bos(self) -> Tensor:
        return torch.full((self.actions[0].shape[0], 1), BOS_ID)
