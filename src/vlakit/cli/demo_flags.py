# SPDX-License-Identifier: Apache-2.0
"""Flags of `vlakit demo`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vlakit.environments.metaworld_tasks import INSTRUCTIONS
from vlakit.errors import ConfigError, did_you_mean

POLICY_NAMES = {"eo1": "EO-1", "pi0_fast": "pi0-FAST"}
"""Policies the demo has a recipe for: `--policy.type` -> what the report calls it."""

_SEEDS_PER_RUN = 10_000
"""Recording, training and rollouts of one --seed stay clear of those of the next."""
_FIRST_ROLLOUT = 5_000


@dataclass(frozen=True, kw_only=True)
class DemoPolicies:
    """Which policies are trained."""

    type: str = "eo1,pi0_fast"
    """Policies to train on the same demonstrations, one after the other."""

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in POLICY_NAMES:
                raise ConfigError(
                    f"--policy.type={self.type}: {name!r} is no policy of the demo; expected some "
                    f"of {','.join(POLICY_NAMES)}.{did_you_mean(name, POLICY_NAMES)}"
                )
        if len(set(self.names)) < len(self.names):
            raise ConfigError(f"--policy.type={self.type} names a policy twice: name each once.")

    @property
    def names(self) -> list[str]:
        """The policies, in order."""
        return [name.strip() for name in self.type.split(",")]


@dataclass(frozen=True, kw_only=True)
class DemoFlags:
    """Flags of `vlakit demo`."""

    output_dir: Path = Path("outputs/demo")
    """Folder for everything; an earlier demo in it is replaced."""
    policy: DemoPolicies = field(default_factory=DemoPolicies)
    """Which policies are trained and compared."""
    tasks: tuple[str, str] = ("window-open-v3", "window-close-v3")
    """Two Meta-World tasks that share a scene: each one's instruction is the other's control."""
    episodes: int = 50
    """Demonstrations per task."""
    steps: int | None = None
    """Training steps of each policy; null takes the number of its recipe."""
    batch_size: int = 64
    """Frames per training step."""
    n_episodes: int = 20
    """Rollouts per task and condition."""
    seed: int = 0
    """Seed of the recording, the training and the rollouts."""
    device: str = "cpu"
    """Where the policies train and act: cpu, cuda or mps."""

    def __post_init__(self) -> None:
        least = {"episodes": 1, "batch_size": 1, "n_episodes": 1, "seed": 0}
        least |= {} if self.steps is None else {"steps": 1}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"--{name}={getattr(self, name)} must be {minimum} or more.")
        for task in self.tasks:
            if task not in INSTRUCTIONS:
                raise ConfigError(
                    f"--tasks: {task!r} is no Meta-World task, such as window-open-v3."
                    + did_you_mean(task, INSTRUCTIONS)
                )

    @property
    def first_recording_seed(self) -> int:
        return self.seed * _SEEDS_PER_RUN

    @property
    def first_rollout_seed(self) -> int:
        """Far from every seed that the recording may have used."""
        return self.first_recording_seed + _FIRST_ROLLOUT

    @property
    def dataset(self) -> Path:
        """Folder of the demonstrations."""
        return self.output_dir / "dataset"

    @property
    def fast_tokenizer(self) -> Path:
        """Folder of the action tokenizer that pi0-FAST uses."""
        return self.output_dir / "fast_tokenizer"

    def folder(self, policy: str) -> Path:
        """Return where a policy's training and evaluations go."""
        return self.output_dir / policy
