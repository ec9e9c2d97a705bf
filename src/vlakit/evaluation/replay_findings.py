# SPDX-License-Identifier: Apache-2.0
"""What a replay says of how a simulator is wired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlakit.evaluation.replay import TURNS, ComparedFrame

REPLAY_FILE = "replay.json"
SAME_START = 0.02
"""A start counts as the recorded one when no number is off by more than this share of its range."""
OPPOSITE = -0.5
"""Correlation of motions below which a number goes the other way."""
CLEARLY_BETTER = 0.7
"""A turned picture counts as the right one when its difference is below this share of the other."""
VISIBLE = 4.0
"""Mean difference of pixels (of 255) below which pictures count as equal: what a codec loses."""


@dataclass(frozen=True)
class StateDimension:
    """One number of the state, over all compared frames."""

    name: str
    max_error: float
    """Largest absolute difference, in the state's unit."""
    range: float
    """Largest minus smallest recorded value."""
    motion_correlation: float | None
    """Of its changes with the recorded changes, in [-1, 1]; None when it hardly moves."""

    @property
    def share(self) -> float:
        """The largest difference as a share of the range; 0 where both are 0."""
        return self.max_error / self.range if self.range > 0 else float(self.max_error > 0)


@dataclass(frozen=True)
class Camera:
    """One camera, over all compared frames."""

    name: str
    differences: tuple[float, ...]
    """Mean absolute difference of the pixels (0 to 255), for each of `TURNS`."""

    @property
    def best(self) -> int:
        return int(np.argmin(self.differences))


@dataclass(frozen=True)
class ReplayReport:
    """How near a replay came to its recording."""

    dataset: str
    knows_starts: bool
    num_frames: int
    start_error: float | None
    """Largest difference of the first states, as a share of the number's range."""
    state: Sequence[StateDimension]
    cameras: Sequence[Camera]

    @property
    def summary(self) -> str:
        """How near the replay came, in one sentence."""
        if not self.state and not self.cameras:
            return "Nothing could be compared: there is neither a state nor a camera."
        parts = []
        if self.state:
            worst = max(self.state, key=lambda number: number.share)
            parts.append(
                "states equal to the bit"
                if all(number.max_error == 0 for number in self.state)
                else f"states differ by at most {worst.share:.1%} of their range ({worst.name})"
            )
        parts += [
            f"{camera.name} by {camera.differences[0]:.1f} of 255 on average"
            for camera in self.cameras
        ]
        return f"Over {self.num_frames} compared frames: {', '.join(parts)}."

    @property
    def findings(self) -> list[str]:
        """What looks wrong, in words; empty when nothing does."""
        found = []
        for camera in self.cameras:
            upright, best = camera.differences[0], camera.differences[camera.best]
            if upright > VISIBLE and best < CLEARLY_BETTER * upright:
                found.append(
                    f"{camera.name} fits the recording better {TURNS[camera.best]}: it differs by "
                    f"{best:.1f} then instead of {upright:.1f} (of 255)."
                )
        found += [
            f"{number.name} of the state goes the other way (correlation of its motion "
            f"{number.motion_correlation:.2f}): a sign of the action or of the state is wrong."
            for number in self.state
            if number.motion_correlation is not None and number.motion_correlation < OPPOSITE
        ]
        if self.knows_starts and self.start_error is not None and self.start_error > SAME_START:
            found.append(
                f"the first states differ by up to {self.start_error:.0%} of their range: another "
                "version of the simulator, or other --env flags than those of the recording."
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the content of `replay.json`."""
        words = {"summary": self.summary, "findings": self.findings}
        return words | asdict(self) | {"turns": list(TURNS)}


def replay_report(
    frames: Mapping[tuple[str, int], Sequence[ComparedFrame]],
    *,
    dataset: str,
    knows_starts: bool,
    state_names: Sequence[str],
) -> ReplayReport:
    """Sum up the comparisons of a replay.

    Args:
        frames: Per episode, in the order of their steps.
        dataset: Its name.
        knows_starts: Whether the episodes began where the recorded ones did.
        state_names: One per number of the state.
    """
    all_frames = [frame for episode in frames.values() for frame in episode]
    cameras = [
        Camera(
            name, tuple(np.mean([frame.pictures[name] for frame in all_frames], axis=0).tolist())
        )
        for name in (all_frames[0].pictures if all_frames else {})
    ]
    recorded = [_stacked([frame.recorded_state for frame in e]) for e in frames.values() if e]
    replayed = [_stacked([frame.state for frame in e]) for e in frames.values() if e]
    has_state = bool(recorded) and all(len(states) for states in (*recorded, *replayed))
    if not has_state:
        return ReplayReport(dataset, knows_starts, len(all_frames), None, [], cameras)
    ranges = np.ptp(np.concatenate(recorded), axis=0)
    firsts = [np.abs(a[0] - b[0]) for a, b in zip(recorded, replayed, strict=True)]
    moving = np.where(ranges > 0, ranges, np.inf)
    start_error = float((np.max(firsts, axis=0) / moving).max())
    state = [
        _dimension(name, number, recorded, replayed, float(ranges[number]))
        for number, name in enumerate(state_names)
    ]
    return ReplayReport(dataset, knows_starts, len(all_frames), start_error, state, cameras)


def _stacked(states: Sequence[NDArray[np.float64] | None]) -> NDArray[np.float64]:
    present = [state for state in states if state is not None]
    return np.stack(present) if present else np.empty((0, 0))


def _dimension(
    name: str,
    number: int,
    recorded: Sequence[NDArray[np.float64]],
    replayed: Sequence[NDArray[np.float64]],
    spread: float,
) -> StateDimension:
    errors = [
        np.abs(a[:, number] - b[:, number]).max() for a, b in zip(recorded, replayed, strict=True)
    ]
    motions = [
        np.concatenate([np.diff(s[:, number]) for s in states]) for states in (recorded, replayed)
    ]
    correlation = None
    if len(motions[0]) > 2 and all(motion.std() > 1e-3 * max(spread, 1e-12) for motion in motions):
        correlation = float(np.corrcoef(motions[0], motions[1])[0, 1])
    return StateDimension(name, float(np.max(errors)), spread, correlation)
