# SPDX-License-Identifier: Apache-2.0
"""What a FAST tokenizer was fitted on, kept beside it so that a policy cannot differ in silence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from vlakit.errors import CheckpointError
from vlakit.features import NEEDED_STATS, NormalizationMode
from vlakit.files import read_json, write_json

NORMALIZER_FILE = "fast_normalizer.json"
_DAMAGED = "Train the tokenizer again (vlakit train-tokenizer), or fetch it again."
_SAME = 1e-5
"""Statistics may pass through float32 on their way; they are one within this relative distance."""


@dataclass(frozen=True)
class FastNormalizer:
    """How actions became the numbers that a tokenizer was fitted on."""

    mode: NormalizationMode
    """How the actions were scaled."""
    encoded_dims: list[tuple[int, int]]
    """Ranges (start, end) of action dimensions in the chunk, in its order; `end` is excluded."""
    relative_dims: list[int] = field(default_factory=list)
    """Action dimensions from which the state at the chunk's start was subtracted."""
    stats: dict[str, list[float]] = field(default_factory=dict)
    """Statistics of the action by name, each of all action dimensions."""
    repo_id: str = ""
    """The dataset."""
    clip: bool = False
    """Whether quantile modes cut actions to the quantile range before scaling."""

    def dims(self) -> list[int]:
        """Return the encoded action dimensions, one by one."""
        return [dim for start, end in self.encoded_dims for dim in range(start, end)]

    def difference(self, policy: FastNormalizer) -> str | None:
        """Return the first difference from a policy's normalisation in words, None without one.

        `repo_id` and `clip` do not count: another dataset with the same statistics is as good, and
        clipping changes what the vocabulary was fitted on, not what its tokens mean.
        """
        pairs = (
            ("normalisation mode", self.mode.value, policy.mode.value),
            ("action dimensions", self.dims(), policy.dims()),
            ("relative dimensions", sorted(self.relative_dims), sorted(policy.relative_dims)),
        )
        for what, ours, theirs in pairs:
            if ours != theirs:
                return f"{what}: {ours} in the tokenizer, {theirs} in the policy"
        for stat in NEEDED_STATS[self.mode]:
            words = self._stat_difference(stat, policy)
            if words:
                return words
        return None

    def _stat_difference(self, stat: str, policy: FastNormalizer) -> str | None:
        for dim in self.dims():
            ours, theirs = _entry(self.stats, stat, dim), _entry(policy.stats, stat, dim)
            if ours is None or theirs is None:
                where = "tokenizer" if ours is None else "policy"
                return f"statistic {stat!r} of action dimension {dim}: missing in the {where}"
            if not math.isclose(ours, theirs, rel_tol=_SAME, abs_tol=_SAME):
                return (
                    f"statistic {stat!r} of action dimension {dim}: {ours:.6g} in the tokenizer, "
                    f"{theirs:.6g} in the policy"
                )
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the content of `fast_normalizer.json`."""
        return asdict(self) | {"mode": self.mode.value}

    def save(self, folder: Path) -> None:
        """Write `fast_normalizer.json`."""
        write_json(folder / NORMALIZER_FILE, self.to_json())

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read `fast_normalizer.json`; None where there is none, as beside foreign tokenizers.

        Raises:
            CheckpointError: the file is damaged.
        """
        path = folder / NORMALIZER_FILE
        if not path.exists():
            return None
        content = read_json(path, CheckpointError, missing=".", damaged=_DAMAGED)
        try:
            return cls(
                mode=NormalizationMode(content["mode"]),
                encoded_dims=[(int(start), int(end)) for start, end in content["encoded_dims"]],
                relative_dims=[int(dim) for dim in content["relative_dims"]],
                stats={name: _floats(values) for name, values in content["stats"].items()},
                repo_id=str(content["repo_id"]),
                clip=bool(content["clip"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as reason:
            raise CheckpointError(
                f"{path} is damaged ({type(reason).__name__}: {reason}). {_DAMAGED}"
            ) from reason


def _entry(stats: dict[str, list[float]], stat: str, dim: int) -> float | None:
    values = stats.get(stat, [])
    return values[dim] if dim < len(values) else None


def _floats(values: Sequence[Any]) -> list[float]:
    return [float(value) for value in values]
