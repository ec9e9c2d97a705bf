# SPDX-License-Identifier: Apache-2.0
"""Batches of LeRobot's dataset, item by item and collated; see `serve.py`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from safetensors.torch import save_file
from serve import Stopwatch, serve, versions
from torch.utils.data import DataLoader, default_collate


class Session:
    """One open dataset."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(
        self, root: str, delta_timestamps: dict[str, list[float]], repo_id: str = "bench/video"
    ) -> dict[str, Any]:
        self.dataset = LeRobotDataset(
            repo_id, root=root, delta_timestamps=delta_timestamps, return_uint8=True
        )
        backend = self.dataset.reader._video_backend
        return {"video_backend": backend} | versions("lerobot", "torch", "av")

    def batch(self, indices: list[int], save_as: str | None = None) -> dict[str, Any]:
        watch = Stopwatch()
        batch = default_collate([self.dataset[index] for index in indices])
        answer = {"ms": watch.ms}
        if save_as is not None:
            tensors = {k: v.contiguous() for k, v in batch.items() if isinstance(v, torch.Tensor)}
            save_file(tensors, self.folder / save_as)
        return answer

    def loader(self, batches: list[list[int]], num_workers: int) -> dict[str, Any]:
        """Return the milliseconds a batch takes through the loader of `lerobot-train`."""
        workers = {"multiprocessing_context": "spawn", "prefetch_factor": 4} if num_workers else {}
        loader = DataLoader(self.dataset, batch_sampler=batches, num_workers=num_workers, **workers)
        loaded = iter(loader)
        next(loaded)
        watch = Stopwatch()
        for _ in range(len(batches) - 1):
            next(loaded)
        return {"ms": watch.ms / (len(batches) - 1)}


if __name__ == "__main__":
    session = Session(Path(sys.argv[1]))
    serve({"load": session.load, "batch": session.batch, "loader": session.loader})
