# SPDX-License-Identifier: Apache-2.0
"""Several processes that share the rollouts of one evaluation, as torchrun starts them.

They agree at the start (one output folder, what was done before) and at the end (all outcomes); in
between each works alone. What they say to one another is JSON as bytes, over gloo.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist

from vlakit.errors import ConfigError, SimulatorError

PATIENCE = timedelta(days=7)
"""The first to finish waits for the last one; one that dies is noticed at once."""


@dataclass(frozen=True)
class Ranks:
    """Which of the processes this one is; a context in which they can talk."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Its number on this machine, which is also its accelerator."""
    local_world_size: int = 1

    @classmethod
    def of_this_process(cls) -> Self:
        """Read what torchrun set; a process that was started plainly is alone.

        Raises:
            ConfigError: The variables contradict one another.
        """
        if "WORLD_SIZE" not in os.environ:
            return cls()
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        try:
            rank, world_size, local_rank, local_size = (int(os.environ[name]) for name in names)
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"WORLD_SIZE is set, but {error} of {', '.join(names)} is missing or no number: "
                "start several processes with torchrun, or unset WORLD_SIZE."
            ) from error
        return cls(rank, world_size, local_rank, local_size)

    @property
    def is_first(self) -> bool:
        """Whether this process shows progress and writes the result."""
        return self.rank == 0

    def gather(self, content: Any) -> list[Any]:
        """Return the JSON contents of all processes, in the order of their ranks.

        Raises:
            SimulatorError: Another process has ended.
        """
        if self.world_size == 1:
            return [content]
        try:
            return self._gather(content)
        except RuntimeError as error:
            raise SimulatorError(
                f"Another process of this evaluation has ended ({str(error).splitlines()[0]}): "
                "its own message says why. Go on with --resume=true."
            ) from error

    def _gather(self, content: Any) -> list[Any]:
        data = json.dumps(content).encode()
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor([len(data)]))
        longest = max(int(size) for size in sizes)
        ours = torch.zeros(longest, dtype=torch.uint8)
        ours[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        all_data = [torch.zeros_like(ours) for _ in sizes]
        dist.all_gather(all_data, ours)
        texts = (d[: int(n)].numpy().tobytes() for d, n in zip(all_data, sizes, strict=True))
        return [json.loads(text) for text in texts]

    def __enter__(self) -> Self:
        if self.world_size > 1:
            dist.init_process_group("gloo", timeout=PATIENCE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.world_size > 1:
            dist.destroy_process_group()
