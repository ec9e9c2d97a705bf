# SPDX-License-Identifier: Apache-2.0
"""One recorded EO-1 case: its checkpoint, its processed batches and what LeRobot made of them."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.fixtures_root import FIXTURE_ROOT
from vlakit.policies.eo1 import EO1Policy
from vlakit.processing import load_processors

TOKENIZER = FIXTURE_ROOT / "tokenizers" / "tiny-qwen2.5-vl"
SCALARS = ("state_token_id", "action_token_id")


class RecordedCase:
    """Tensors of one case; some cases share the input files of a neighbour."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = FIXTURE_ROOT / "eo1" / name
        self.note = json.loads((self.folder / "case.json").read_text(encoding="utf-8"))
        self.inputs = self.folder / self.note.get("inputs_from", ".")
        self.checkpoint = self.folder / "checkpoint"
        self.is_bfloat16 = name.endswith("bf16")

    def tolerance(self, float32: float, bfloat16: float) -> float:
        return bfloat16 if self.is_bfloat16 else float32

    def policy(self, **overrides: Any) -> EO1Policy:
        return EO1Policy.from_pretrained(self.checkpoint, **overrides)

    def tensors(self, name: str) -> dict[str, Tensor]:
        own = self.folder / f"{name}.safetensors"
        return load_file(own if own.is_file() else self.inputs / f"{name}.safetensors")

    def json(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))

    def batch(self, mode: str) -> dict[str, Any]:
        """Return the processed batch of 'train' or 'infer'."""
        batch: dict[str, Any] = self.tensors(f"{mode}_processed")
        if "pixel_values" not in batch:
            batch["pixel_values"] = self.pixel_values
        return batch | {key: self.note[mode]["scalars_after_preprocess"][key] for key in SCALARS}

    @cached_property
    def pixel_values(self) -> Tensor:
        """The recorded patches; our own from the raw images where a clone's recording has none."""
        recorded = self.tensors("train_processed")
        if "pixel_values" in recorded:
            return recorded["pixel_values"]
        preprocess, _ = load_processors(self.checkpoint, vlm_base=TOKENIZER)
        return preprocess(self.tensors("raw_batch") | {"task": self.note["tasks"]})["pixel_values"]

    @cached_property
    def noise(self) -> dict[str, Tensor]:
        return self.tensors("noise")


def relative(actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference in units of the largest expected value."""
    return ((actual.float() - expected.float()).abs().max() / expected.float().abs().max()).item()


def norm_error(actual: Tensor | None, expected: float | None, largest: float) -> float:
    """Return the difference of a gradient norm, relative to it or to 1e-3 of the largest one."""
    own = 0.0 if actual is None else torch.linalg.vector_norm(actual.double()).item()
    return abs(own - (expected or 0.0)) / max(expected or 0.0, 1e-3 * largest)
