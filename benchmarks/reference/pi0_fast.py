# SPDX-License-Identifier: Apache-2.0
"""LeRobot's pi0-FAST on the settings and the inputs in a folder; see `serve.py`.

Two things are set from outside, because LeRobot 0.6.1 has no setting for them.

- Sizes. Its `gemma_2b` is the only variant that runs (`gemma_300m` stops on the width of its image
  features), so a smaller network is one whose Hugging Face configuration is changed just before it
  is built. For `gemma_2b` itself nothing is changed.
- Tokenizers. They have to be downloaded, and the measured calls need two ids of them only: a
  stand-in gives these. So actions are not decoded on this side: what is measured ends with the
  tokens. SciPy, which would only decode them, need not be there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.pi0_fast import modeling_pi0_fast as modeling
from measure import DeviceStopwatch, PeakMemory, optimizer_mb, set_precision, used_mb
from named_weights import fill_by_name
from safetensors.torch import load_file
from serve import serve, versions

TOKENS, MASK = "observation.language.tokens", "observation.language.attention_mask"


class Tokenizers:
    """Stands in for the text tokenizer and the FAST tokenizer."""

    bos_token_id = 2

    @classmethod
    def from_pretrained(cls, *_: Any, **__: Any) -> Tokenizers:
        return cls()

    def convert_tokens_to_ids(self, _: str) -> int:
        """Return an id that no network says: with random weights the end would come by chance."""
        return -1


def change_sizes(text: dict[str, Any], vision: dict[str, Any]) -> None:
    """Let LeRobot build its network in other sizes."""
    build = modeling.PaliGemmaForConditionalGenerationWithPiGemma

    def build_changed(config: Any) -> Any:
        for part, sizes in ((config.text_config, text), (config.vision_config, vision)):
            for name, value in sizes.items():
                setattr(part, name, value)
        config.vision_config.projection_dim = text["hidden_size"]
        return build(config=config)

    modeling.PaliGemmaForConditionalGenerationWithPiGemma = build_changed


class Session:
    """One policy with its optimiser."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        modeling.AutoProcessor = modeling.AutoTokenizer = Tokenizers
        modeling.require_package = lambda *_, **__: None

    def load(self, sizes: dict[str, Any] | None, gradient_checkpointing: bool) -> dict[str, Any]:
        if sizes is not None:
            change_sizes(sizes["text_config"], sizes["vision_config"])
        config = PreTrainedConfig.from_pretrained(self.folder / "lerobot")
        config.gradient_checkpointing = gradient_checkpointing
        self.device, self.dtype = config.device, config.dtype
        set_precision(self.device)
        watch = DeviceStopwatch(self.device)
        with torch.device(self.device):  # else it draws its weights on the CPU first
            self.policy = modeling.PI0FastPolicy(config)
        filled = fill_by_name(self.policy)
        batch = load_file(self.folder / "inputs.safetensors")
        self.batch = {name: value.to(self.device) for name, value in batch.items()}
        preset = config.get_optimizer_preset()
        self.clip = preset.grad_clip_norm
        self.optimizer = preset.build(self.policy.parameters())
        self.weights_mb = used_mb(self.device)
        found = versions("lerobot", "torch", "transformers")
        return {"build_ms": watch.ms, "threads": torch.get_num_threads()} | filled | found

    @torch.no_grad()
    def loss(self) -> dict[str, Any]:
        """The loss of the batch, without a step."""
        self.policy.eval()
        return {"loss": self.policy.forward(self.batch)[0].item()}

    def step(self, seed: int) -> dict[str, Any]:
        """One training step as in lerobot_train.py, from the preprocessed batch to the weights."""
        torch.manual_seed(seed)
        peak, watch = PeakMemory(self.device), DeviceStopwatch(self.device)
        self.policy.train()
        enabled = self.dtype == "bfloat16"
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=enabled):
            loss, _ = self.policy.forward(self.batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        answer = {"ms": watch.ms, "loss": loss.item(), "norm": norm.item()}
        memory = {"peak_mb": peak.mb, "weights_mb": self.weights_mb}
        return answer | memory | {"optimizer_mb": optimizer_mb(self.optimizer)}

    @torch.no_grad()
    def generate(self, tokens: int, rows: int, with_values: bool = False) -> dict[str, Any]:
        """Exactly so many tokens per row, as `predict_action_chunk` generates them."""
        self.policy.eval()
        batch = {name: value[:rows] for name, value in self.batch.items()}
        watch = DeviceStopwatch(self.device)
        images, masks = self.policy._preprocess_images(batch)
        ids = self.policy.model.sample_actions_fast_kv_cache(
            images, masks, batch[TOKENS], batch[MASK], max_decoding_steps=tokens, temperature=0.0
        )
        answer: dict[str, Any] = {"ms": watch.ms}
        return answer | ({"ids": ids.tolist()} if with_values else {})


if __name__ == "__main__":
    session = Session(Path(sys.argv[1]))
    functions = {name: getattr(session, name) for name in ("load", "loss", "step", "generate")}
    serve(functions)
