# SPDX-License-Identifier: Apache-2.0
"""Which dimensions of the action are encoded, checked against those that there are."""

from __future__ import annotations

from dataclasses import dataclass

from vlakit.errors import ConfigError
from vlakit.training.fast_tokenizer.actions import Actions
from vlakit.training.tokenizer_config import TokenizerFlags


@dataclass(frozen=True)
class Dimensions:
    """The dimensions of a chunk."""

    ranges: list[tuple[int, int]]
    """Of the action, (start, end) with end excluded, in the order of the chunk."""
    relative: list[int]
    """Dimensions of the action that are encoded relative to the state."""

    @property
    def encoded(self) -> list[int]:
        """The encoded dimensions of the action, one by one."""
        return [dim for start, end in self.ranges for dim in range(start, end)]

    def is_whole(self, action_dim: int) -> bool:
        """Return whether these are all dimensions of an action, in their order."""
        return self.encoded == list(range(action_dim))

    @property
    def text(self) -> str:
        """As `--encoded_dims` takes them."""
        return ",".join(f"{start}:{end}" for start, end in self.ranges)


def choose_dimensions(flags: TokenizerFlags, actions: Actions) -> Dimensions:
    """Return the dimensions that the flags ask for.

    Raises:
        ConfigError: the action or the state has no such dimension.
    """
    ranges = flags.encoded_ranges() or [(0, actions.dim)]
    last = max(end for _, end in ranges) - 1
    if last >= actions.dim:
        raise ConfigError(
            f"--encoded_dims={flags.encoded_dims} reaches dimension {last}, but the action of "
            f"{actions.repo_id} has {actions.dim}: {actions.labels()}. Give "
            f"--encoded_dims=0:{actions.dim} for all of them, or leave the flag out."
        )
    relative = flags.relative_dim_list()
    if relative:
        assert actions.states is not None
        sizes = {"action": actions.dim, flags.state_key: actions.states.shape[1]}
        for name, size in sizes.items():
            if max(relative) >= size:
                raise ConfigError(
                    f"--relative_dims={flags.relative_dims} names dimension {max(relative)}, but "
                    f"{name!r} of {actions.repo_id} has {size} (0 to {size - 1}): the state is "
                    "subtracted dimension by dimension. Correct --relative_dims or --state_key."
                )
    chosen = Dimensions(ranges, [])
    kept = set(chosen.encoded)
    return Dimensions(ranges, [dim for dim in relative if dim in kept])
