# SPDX-License-Identifier: Apache-2.0
"""What every step of a pipeline is; a step with an inverse has it in the same module."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor


class Step:
    """One stage of a pipeline: a batch in, a batch out; the batch it got stays as it was."""

    registry_name: ClassVar[str]
    """LeRobot's name of the step in the JSON file."""
    device: torch.device | None = None
    """Where the pipeline delivers; a step with heavy arithmetic does it there."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with this step's change."""
        raise NotImplementedError

    def prepare(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the part of the step that a process without the device can do.

        `deliver(prepare(batch))` equals the call, to the bit, also where the `prepare` of later
        steps runs in between.
        """
        return self(batch)

    def deliver(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the rest, where the device is."""
        return batch

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON values."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """Return the tensors to store beside the JSON file; empty when there are none."""
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the tensors that `state` gave."""

    def check(self, entries: Mapping[str, Any]) -> None:
        """Make sure that the step can run, given the content of the policy's `config.json`."""

    def link(self, preprocessing: Sequence[Step]) -> None:
        """Find the step of the preprocessor that this one, in the postprocessor, undoes."""

    def artifacts(self) -> dict[str, str]:
        """Return where `save_assets` writes, inside the folder, by configuration key."""
        return {}

    def save_assets(self, folder: Path) -> None:
        """Write what the step needs besides JSON and tensors, such as a tokenizer."""

    def load_assets(
        self, folder: Path, artifacts: Mapping[str, str], overridden: Collection[str]
    ) -> None:
        """Find what `save_assets` wrote.

        Args:
            folder: the checkpoint's folder.
            artifacts: paths inside it by configuration key, as LeRobot 0.6.2 writes them.
            overridden: configuration keys that the caller set, which win over what is stored.
        """
