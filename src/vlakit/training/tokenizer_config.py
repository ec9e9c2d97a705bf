# SPDX-License-Identifier: Apache-2.0
"""Settings of `vlakit train-tokenizer`: LeRobot's names and defaults, ours after them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlakit.errors import ConfigError

NUM_BYTES = 256


@dataclass(frozen=True, kw_only=True)
class TokenizerFlags:
    """Fit a FAST action tokenizer to the actions of a dataset."""

    repo_id: str
    """Dataset: its name, or the path of a local folder that holds meta/."""
    root: str | None = None
    """Folder of the dataset; null looks in LeRobot's home folder, then on the hub."""
    revision: str | None = None
    """Branch, tag or commit of a dataset on the hub."""
    action_horizon: int = 10
    """Actions per chunk: the `chunk_size` of the policy that will use the tokenizer."""
    max_episodes: int | None = None
    """Use the first episodes only; null uses all."""
    sample_fraction: float = 0.1
    """Share of each episode's full chunks that the vocabulary is fitted on, at least one chunk."""
    encoded_dims: str | None = None
    """Action dimensions to encode as ranges, such as 0:6,7:23; null is all, which pi0-FAST needs
    (LeRobot's default is 0:6,7:23, whatever the robot)."""
    relative_dims: str | None = None
    """Action dimensions, such as 0,1,2, from which the state at the chunk's start is subtracted."""
    use_relative_transform: bool = False
    """Subtract the state on `--relative_dims`."""
    state_key: str = "observation.state"
    """The state that is subtracted."""
    normalization_mode: Literal["MEAN_STD", "MIN_MAX", "QUANTILES", "QUANTILE10", "IDENTITY"] = (
        "QUANTILES"
    )
    """How actions are scaled before encoding, by the dataset's statistics. The policy must do the
    same. The quantile modes also clip what the vocabulary is fitted on, as LeRobot does."""
    vocab_size: int = 1024
    """Most tokens in the vocabulary; 256 of them are the bytes."""
    scale: float = 10.0
    """Quantisation steps per unit of a DCT coefficient: larger is more exact and takes more
    tokens."""
    output_dir: str | None = None
    """Folder of the tokenizer; null is fast_tokenizer_ and the dataset's name."""
    push_to_hub: bool = False
    """Upload the tokenizer after it was saved."""
    hub_repo_id: str | None = None
    """Where to; null is the name of the output folder."""
    hub_private: bool = False
    """Make a new repository on the hub private."""
    reference: bool = False
    """Fit by LeRobot's rules, to the token: chunks with lower coefficients than the sample's cannot
    be encoded, and relative chunks are scaled by statistics of absolute actions."""
    regex_split: bool = True
    """Split the text of a chunk by GPT-2's pattern before merging, as LeRobot does; false gives
    fewer tokens."""
    sweep: bool = False
    """Only compare vocabularies and scales: writes sweep.md and sweep.json, and no tokenizer."""

    def __post_init__(self) -> None:
        for name in ("action_horizon", "max_episodes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name}={value} must be at least 1: give a larger one.")
        if self.vocab_size < NUM_BYTES:
            raise ConfigError(
                f"--vocab_size={self.vocab_size} must be at least {NUM_BYTES}: every byte has an "
                "id, so that no coefficient is lost. 1024 is usual."
            )
        if not 0 < self.sample_fraction <= 1:
            raise ConfigError(
                f"--sample_fraction={self.sample_fraction} must be above 0 and at most 1: 0.1 "
                "takes every tenth chunk of an episode, 1 takes all."
            )
        if not (self.scale > 0 and math.isfinite(self.scale)):
            raise ConfigError(f"--scale={self.scale:g} must be a positive number; 10 is usual.")
        if not self.repo_id.strip("/"):
            raise ConfigError("--repo_id is empty: give a dataset such as me/drawer.")
        self._check_relative()
        if self.sweep and self.push_to_hub:
            raise ConfigError(
                "--sweep fits no tokenizer that could be pushed: leave out --push_to_hub, choose "
                "from the table, then fit and push with that --vocab_size and --scale."
            )
        self.encoded_ranges()

    def _check_relative(self) -> None:
        is_given = bool(self.relative_dim_list())
        if self.use_relative_transform and not is_given:
            raise ConfigError(
                "--use_relative_transform=true needs the dimensions to make relative: give, for "
                "instance, --relative_dims=0,1,2."
            )
        if is_given and not self.use_relative_transform:
            raise ConfigError(
                f"--relative_dims={self.relative_dims} has no effect without "
                "--use_relative_transform=true: give both or neither."
            )

    def encoded_ranges(self) -> list[tuple[int, int]] | None:
        """Return the ranges (start, end) of `encoded_dims`, end excluded, None for all dimensions.

        Raises:
            ConfigError: the text is no list of ranges, or names a dimension twice.
        """
        if self.encoded_dims is None:
            return None
        ranges: list[tuple[int, int]] = []
        for part in self.encoded_dims.split(","):
            start, colon, end = (piece.strip() for piece in part.partition(":"))
            if not (colon and start.isdecimal() and end.isdecimal() and int(start) < int(end)):
                raise ConfigError(
                    f"--encoded_dims={self.encoded_dims} has {part.strip()!r}; expected ranges "
                    "start:end with start below end, such as 0:6,7:8 for dimensions 0 to 5 and 7."
                )
            ranges.append((int(start), int(end)))
        dims = [dim for start, end in ranges for dim in range(start, end)]
        if len(set(dims)) != len(dims):
            twice = next(dim for dim in dims if dims.count(dim) > 1)
            raise ConfigError(
                f"--encoded_dims={self.encoded_dims} names dimension {twice} twice; expected "
                "ranges that do not overlap."
            )
        return ranges

    def relative_dim_list(self) -> list[int]:
        """Return the dimensions of `relative_dims`.

        Raises:
            ConfigError: the text is no list of whole numbers.
        """
        parts = [part.strip() for part in (self.relative_dims or "").split(",") if part.strip()]
        if not all(part.isdecimal() for part in parts):
            raise ConfigError(
                f"--relative_dims={self.relative_dims}: expected dimensions such as 0,1,2."
            )
        return [int(part) for part in parts]

    def output_path(self) -> Path:
        """Return the folder of the tokenizer."""
        if self.output_dir is not None:
            return Path(self.output_dir).expanduser()
        path = Path(self.repo_id)
        name = path.resolve().name if path.is_dir() else self.repo_id.replace("/", "_")
        return Path(f"fast_tokenizer_{name}")
