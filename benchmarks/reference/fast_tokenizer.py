# SPDX-License-Identifier: Apache-2.0
"""LeRobot's port of the FAST processor, chunk by chunk; see `serve.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.policies.molmoact2.molmoact2_hf_model.action_tokenizer import UniversalActionProcessor
from serve import Stopwatch, serve, versions


class Session:
    """One tokenizer and its chunks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self) -> dict[str, Any]:
        folder = self.folder / "tokenizer"
        self.processor = UniversalActionProcessor.from_pretrained_local(str(folder))
        self.chunks = np.load(self.folder / "chunks.npy")
        return versions("lerobot", "transformers", "tokenizers", "scipy")

    def encode(self, save: bool = False) -> dict[str, Any]:
        watch = Stopwatch()
        self.ids = [self.processor(chunk[None])[0] for chunk in self.chunks]
        answer = {"ms": watch.ms}
        if save:
            (self.folder / "ids.json").write_text(json.dumps(self.ids), encoding="utf-8")
        return answer

    def decode(self, save: bool = False) -> dict[str, Any]:
        _, horizon, action_dim = self.chunks.shape
        watch = Stopwatch()
        decoded = self.processor.decode(self.ids, time_horizon=horizon, action_dim=action_dim)
        answer = {"ms": watch.ms}
        if save:
            np.save(self.folder / "decoded.npy", decoded)
        return answer


if __name__ == "__main__":
    session = Session(Path(sys.argv[1]))
    serve({"load": session.load, "encode": session.encode, "decode": session.decode})
