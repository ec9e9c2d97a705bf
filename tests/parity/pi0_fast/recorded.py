# SPDX-License-Identifier: Apache-2.0
"""One recorded pi0-FAST case as a user meets it: checkpoint, raw batches, what LeRobot made."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.fixtures_root import FIXTURE_ROOT
from tests.parity.pi0_fast.network_case import hugging_face_config
from vlakit.policies.pi0_fast import PI0FastPolicy
from vlakit.processing import Pipeline, load_processors

TEXT_TOKENIZER = FIXTURE_ROOT / "tokenizers" / "tiny-paligemma"
FAST_TOKENIZER = FIXTURE_ROOT / "tokenizers" / "fast"
TOKENIZERS = {
    "text_tokenizer_name": str(TEXT_TOKENIZER),
    "action_tokenizer_name": str(FAST_TOKENIZER),
}
"""The recorded names are relative to the recordings' folder."""


class RecordedCase:
    """Some cases share the input files of a neighbour."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = FIXTURE_ROOT / "pi0_fast" / name
        if not self.folder.is_dir():
            pytest.skip(f"the recording {name} is in the full set only")
        self.note = json.loads((self.folder / "case.json").read_text(encoding="utf-8"))
        self.inputs = self.folder / self.note.get("inputs_from", ".")
        self.checkpoint = self.folder / "checkpoint"
        self.is_bfloat16 = name.endswith("bf16")
        is_lossy = {"allow_truncation": "trunc" in name, "allow_missing_cameras": "missing" in name}
        self.allowed = {key: True for key, value in is_lossy.items() if value}

    def tolerance(self, float32: float, bfloat16: float) -> float:
        return bfloat16 if self.is_bfloat16 else float32

    def tensors(self, name: str) -> dict[str, Tensor]:
        own = self.folder / f"{name}.safetensors"
        return load_file(own if own.is_file() else self.inputs / f"{name}.safetensors")

    @cached_property
    def sizes(self) -> dict[str, Any]:
        """What LeRobot was patched to, as a user would set it."""
        path = self.folder / "shrunk_sizes.json"
        return hugging_face_config(json.loads(path.read_text(encoding="utf-8")))

    def policy(self, **overrides: Any) -> PI0FastPolicy:
        settings = TOKENIZERS | self.allowed | {"paligemma_config": self.sizes} | overrides
        return PI0FastPolicy.from_pretrained(self.checkpoint, **settings)

    def processors(self, **overrides: Any) -> tuple[Pipeline, Pipeline]:
        return load_processors(self.checkpoint, **(TOKENIZERS | self.allowed | overrides))

    def raw(self, mode: str) -> dict[str, Any]:
        """Return the batch before the preprocessor, of 'train' or 'infer'."""
        raw: dict[str, Any] = self.tensors("raw_batch")
        for name in self.note.get("missing_from_batch", []):
            raw.pop(f"observation.images.{name}", None)
        if mode == "infer":
            del raw["action"], raw["action_is_pad"]
        return raw | {"task": self.note["tasks"]}

    def batch(self, mode: str) -> dict[str, Any]:
        """Return the recorded processed batch, with the raw images, which do not change."""
        raw = self.raw(mode)
        images = {name: raw[name] for name in raw if name.startswith("observation.images.")}
        return images | self.tensors(f"{mode}_processed")


def relative(actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference in units of the largest expected value."""
    return ((actual.float() - expected.float()).abs().max() / expected.float().abs().max()).item()


def norm_error(actual: Tensor | None, expected: float | None, largest: float) -> float:
    """Return the difference of a gradient norm, relative to it or to 1e-3 of the largest one."""
    own = 0.0 if actual is None else torch.linalg.vector_norm(actual.double()).item()
    return abs(own - (expected or 0.0)) / max(expected or 0.0, 1e-3 * largest)
