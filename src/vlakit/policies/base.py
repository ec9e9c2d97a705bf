# SPDX-License-Identifier: Apache-2.0
"""What every policy can do."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from vlakit.checkpoints.pretrained import save_state
from vlakit.errors import ConfigError, DeviceError, ProcessingError
from vlakit.features import ACTION_ANCHOR
from vlakit.policies.action_queue import ActionQueue
from vlakit.policies.backbones.recorded import Recordings
from vlakit.policies.config import PolicyConfig
from vlakit.policies.processors import Origin, save_companions
from vlakit.processing.relative_actions import Anchor

ConfigT = TypeVar("ConfigT", bound=PolicyConfig)


class Policy(nn.Module, Generic[ConfigT]):
    """A network with the settings it was built from, and a queue of predicted actions."""

    config: ConfigT
    _recordings: Recordings[Any]

    def __init__(self, config: ConfigT, n_action_steps: int) -> None:
        super().__init__()
        self.config = config
        self._queue = ActionQueue(n_action_steps)
        self._chunk_state: Tensor | None = None
        self.origin: Origin | None = None
        """The checkpoint that the weights come from; `from_pretrained` sets it."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def tied_weights(self) -> dict[str, str]:
        """Tensor names that are not stored -> names of the tensors they share."""
        return {}

    @property
    def has_fixed_shapes(self) -> bool:
        """Whether chunks are computed at fixed shapes, see the setting `engine`."""
        wanted = self.config.engine
        return wanted == "static" or (wanted == "auto" and self.device.type == "cuda")

    @property
    def recording_s(self) -> float:
        """Seconds that recording chunks at fixed shapes took so far, once per size of a batch."""
        return self._recordings.seconds

    def warm_up(self, batch: Mapping[str, Any]) -> float:
        """Predict once, so that later calls of this size find all recorded and compiled.

        Args:
            batch: as for `predict_action_chunk`.

        Returns:
            Seconds that it took.
        """
        started = time.perf_counter()
        self.try_action_chunk(batch)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - started

    @classmethod
    @abstractmethod
    def from_pretrained(
        cls,
        path_or_repo_id: str | Path,
        *,
        device: str | torch.device | None = "cpu",
        revision: str | None = None,
        token: str | None = None,
        config: ConfigT | None = None,
        **overrides: Any,
    ) -> Policy:
        """Load a checkpoint, strictly, in evaluation mode.

        Args:
            path_or_repo_id: a folder or a hub id.
            device: where the weights go; None takes the best device of this machine.
            revision: branch, tag or commit of a hub repository.
            token: hub token for private repositories.
            config: used in the place of the stored settings.
            **overrides: settings by name that win over the stored ones.

        Raises:
            CheckpointError: when tensors are missing, unexpected or misshaped, or files damaged.
            ConfigError: for an unknown override.
        """

    @classmethod
    @abstractmethod
    def from_backbone(
        cls,
        config: ConfigT,
        *,
        device: str | torch.device | None = None,
        token: str | None = None,
    ) -> Policy:
        """Build a new policy on a pretrained backbone; the rest is random."""

    @abstractmethod
    def forward(
        self, batch: Mapping[str, Any], noise: Tensor | None = None, time: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return the loss, a scalar, and numbers for the log; see `for_the_log`."""

    @abstractmethod
    def num_tokens(self, batch: Mapping[str, Any]) -> int:
        """Return how many tokens, without padding, the language model reads of a batch."""

    @abstractmethod
    def predict_action_chunk(self, batch: Mapping[str, Any], noise: Tensor | None = None) -> Tensor:
        """Return normalised actions, (batch, horizon, action_dim) float32."""

    def try_action_chunk(
        self, batch: Mapping[str, Any], noise: Tensor | None = None
    ) -> tuple[Tensor, dict[int, str]]:
        """As `predict_action_chunk`, for policies that generate tokens which may spell no chunk.

        Returns:
            Normalised actions, (batch, horizon, action_dim) float32, NaN in the rows that could not
            be decoded, and the reason for each of these rows.
        """
        return self.predict_action_chunk(batch, noise=noise), {}

    def make_noise(self, batch_size: int, generators: Sequence[torch.Generator]) -> Tensor | None:
        """Return noise for one chunk per row, each from its own generator; None if not needed."""
        return None

    def select_action(self, batch: Mapping[str, Any], noise: Tensor | None = None) -> Tensor:
        """Return the next action, (batch, action_dim); predicts a chunk when none is left.

        Relative actions stay relative to the state that their chunk was predicted from: the
        postprocessor gets that one back, though the preprocessor has seen newer ones.
        """
        anchor: Anchor | None = batch.get(ACTION_ANCHOR)
        if not self._queue:
            self._queue.refill(self.predict_action_chunk(batch, noise=noise))
            self._chunk_state = None if anchor is None else anchor.state
        if anchor is not None:
            anchor.state = self._chunk_state
        return self._queue.pop()

    def reset(self) -> None:
        """Forget predicted actions, as at the start of an episode."""
        self._queue.clear()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a checkpoint in LeRobot's layout: settings, weights and tokenizer.

        A policy that was loaded from a checkpoint takes the processors of that one along. Those of
        a new policy are known to whoever made them: `Pipeline.save` puts them beside it.
        """
        if self.config.weight_quantization != "none":
            raise ConfigError(
                f"a policy with weight_quantization={self.config.weight_quantization} is not "
                "saved: its weights are rounded. Load the checkpoint without it and save that."
            )
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save(folder)
        save_state(self, folder, tied=self.tied_weights)
        save_companions(self.config, self.origin, folder)


def for_the_log(value: Tensor) -> Any:
    """Return a scalar as a float; on a GPU as a tensor there, since reading it would wait."""
    return value.item() if value.device.type == "cpu" else value.detach()


def resolve_device(
    name: str | torch.device | None, *, flag: str = "--policy.device"
) -> torch.device:
    """Return a device that this machine has.

    Args:
        name: such as 'cpu' or 'cuda:1'; None takes cuda, else mps, else cpu.
        flag: where the name comes from, for the message.

    Raises:
        DeviceError: when there is no such device.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name is None:
        return torch.device(next(kind for kind, there in available.items() if there))
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(
            f"device {name!r} is no device name; expected cpu, cuda, cuda:<number> or mps. "
            f"Correct {flag}."
        ) from error
    known = available.get(device.type, False)
    too_high = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if not known or too_high:
        have = ", ".join(kind for kind, there in available.items() if there)
        raise DeviceError(
            f"device {str(name)!r} is not available; this machine has {have}. "
            f"Choose one of these with {flag}."
        )
    return device


def require(batch: Mapping[str, Any], key: str) -> Any:
    """Return an entry of a processed batch.

    Raises:
        ProcessingError: when it is absent.
    """
    if batch.get(key) is None:
        raise ProcessingError(
            f"the batch has no {key!r}; a policy takes what its preprocessor returns. "
            "Call the checkpoint's preprocessor first."
        )
    return batch[key]
