# SPDX-License-Identifier: Apache-2.0
"""LeRobot's EO-1 on the checkpoint and the inputs in a folder; see `serve.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.eo1.modeling_eo1 import EO1Policy
from lerobot.policies.factory import make_pre_post_processors
from safetensors.torch import load_file
from serve import Stopwatch, serve, versions


class Session:
    """One policy with its processors and optimiser."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.raw: dict[str, Any] = load_file(folder / "inputs.safetensors")
        self.raw |= json.loads((folder / "inputs.json").read_text(encoding="utf-8"))

    def load(self, gradient_checkpointing: bool) -> dict[str, Any]:
        checkpoint = self.folder / "checkpoint"
        config = PreTrainedConfig.from_pretrained(checkpoint)
        config.pretrained_path = checkpoint  # as its command line does; else it wants `vlm_base`
        config.gradient_checkpointing = gradient_checkpointing
        self.policy = EO1Policy.from_pretrained(checkpoint, config=config)
        self.preprocess, self.postprocess = make_pre_post_processors(
            config, pretrained_path=str(checkpoint)
        )
        preset = config.get_optimizer_preset()
        self.clip = preset.grad_clip_norm
        self.optimizer = preset.build(self.policy.parameters())
        return {"threads": torch.get_num_threads()} | versions("lerobot", "torch", "transformers")

    def step(self, seed: int) -> dict[str, Any]:
        """One training step as in lerobot_train.py, from the raw batch to the new weights."""
        torch.manual_seed(seed)
        watch = Stopwatch()
        self.policy.train()
        batch = self.preprocess(_as_float(self.raw))
        loss, _ = self.policy.forward(batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"ms": watch.ms, "loss": loss.item(), "norm": norm.item()}

    def chunk(self, seed: int, rows: int, with_values: bool = False) -> dict[str, Any]:
        """One action chunk, from the raw observation to the robot's units."""
        torch.manual_seed(seed)
        watch = Stopwatch()
        observation = {
            name: value[:rows] for name, value in self.raw.items() if not name.startswith("action")
        }
        chunk = self.postprocess(
            self.policy.predict_action_chunk(self.preprocess(_as_float(observation)))
        )
        answer: dict[str, Any] = {"ms": watch.ms}
        return answer | ({"chunk": chunk.tolist()} if with_values else {})


def _as_float(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the batch with cameras in [0, 1], which LeRobot's loops compute outside the policy."""
    return {
        name: value.to(torch.float32) / 255.0
        if isinstance(value, torch.Tensor) and value.dtype == torch.uint8
        else value
        for name, value in raw.items()
    }


if __name__ == "__main__":
    session = Session(Path(sys.argv[1]))
    serve({"load": session.load, "step": session.step, "chunk": session.chunk})
