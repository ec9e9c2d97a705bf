# SPDX-License-Identifier: Apache-2.0
"""LeRobot's EO-1 on the settings and the inputs in a folder; see `serve.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.eo1.modeling_eo1 import EO1Policy
from lerobot.policies.factory import make_pre_post_processors
from measure import DeviceStopwatch, PeakMemory, optimizer_mb, set_precision, used_mb
from named_weights import fill_by_name
from safetensors.torch import load_file
from serve import serve, versions


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
        self.device, self.dtype = config.device, config.dtype
        set_precision(self.device)
        watch = DeviceStopwatch(self.device)
        with torch.device(self.device):  # else it draws its weights on the CPU first
            self.policy = EO1Policy(config)
        filled = fill_by_name(self.policy)
        self.policy.model.sample_noise = self.sample_noise
        self.preprocess, self.postprocess = make_pre_post_processors(
            config, pretrained_path=str(checkpoint)
        )
        preset = config.get_optimizer_preset()
        self.clip = preset.grad_clip_norm
        self.optimizer = preset.build(self.policy.parameters())
        self.weights_mb = used_mb(self.device)
        found = versions("lerobot", "torch", "transformers")
        return {"build_ms": watch.ms, "threads": torch.get_num_threads()} | filled | found

    def sample_noise(self, shape: Any, device: Any) -> torch.Tensor:
        """Stand in for the policy's own draw, which differs from one kind of device to another."""
        return torch.randn(tuple(shape), generator=self.noise).to(device)

    def step(self, seed: int) -> dict[str, Any]:
        """One training step as in lerobot_train.py, from the raw batch to the new weights."""
        self._seed(seed)
        peak, watch = PeakMemory(self.device), DeviceStopwatch(self.device)
        self.policy.train()
        batch = self.preprocess(_as_float(self.raw))
        enabled = self.dtype == "bfloat16"
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=enabled):
            loss, _ = self.policy.forward(batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        answer = {"ms": watch.ms, "loss": loss.item(), "norm": norm.item()}
        memory = {"peak_mb": peak.mb, "weights_mb": self.weights_mb}
        return answer | memory | {"optimizer_mb": optimizer_mb(self.optimizer)}

    def chunk(self, seed: int, rows: int, with_values: bool = False) -> dict[str, Any]:
        """One action chunk, from the raw observation to the robot's units."""
        self._seed(seed)
        watch = DeviceStopwatch(self.device)
        observation = {
            name: value[:rows] for name, value in self.raw.items() if not name.startswith("action")
        }
        chunk = self.postprocess(
            self.policy.predict_action_chunk(self.preprocess(_as_float(observation)))
        )
        answer: dict[str, Any] = {"ms": watch.ms}
        return answer | ({"chunk": chunk.tolist()} if with_values else {})

    def _seed(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.noise = torch.Generator().manual_seed(seed)


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
