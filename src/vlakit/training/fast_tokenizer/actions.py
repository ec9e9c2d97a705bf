# SPDX-License-Identifier: Apache-2.0
"""The actions of a dataset: two columns of its tables, never a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlakit.datasets.feature_stats import QUANTILES, FeatureStats, array_stats
from vlakit.datasets.layout import INFO_PATH
from vlakit.datasets.location import locate
from vlakit.datasets.metadata import DatasetMetadata
from vlakit.datasets.reading.frames import FrameTable, load_frames
from vlakit.datasets.reading.versions import load_metadata
from vlakit.errors import DatasetError, did_you_mean
from vlakit.features import ACTION, NEEDED_STATS, NormalizationMode
from vlakit.training.tokenizer_config import TokenizerFlags


@dataclass(frozen=True)
class Actions:
    """The actions of a dataset's first episodes, and what the dataset says of them."""

    repo_id: str
    values: np.ndarray
    """(frames, action_dim) float32, in the robot's units."""
    states: np.ndarray | None
    """(frames, state_dim), where chunks are made relative to the state."""
    episodes: np.ndarray
    """(episodes,) their numbers, ascending."""
    starts: np.ndarray
    """(episodes,) row of each one's first frame."""
    ends: np.ndarray
    """(episodes,) row after each one's last frame."""
    read_bounds: tuple[np.ndarray, np.ndarray]
    """The same two of all episodes that were read for the statistics."""
    names: tuple[str, ...]
    """Of the dimensions; empty where the dataset has none."""
    stats: FeatureStats
    """Of the action over the whole dataset, (action_dim,) each; empty for IDENTITY."""
    quantiles_are_computed: bool
    """Whether the dataset had none, so that they come from its data."""
    fps: float

    @property
    def dim(self) -> int:
        """Numbers of one action."""
        return self.values.shape[1]

    def label(self, dim: int) -> str:
        """Return a dimension as a person reads it, such as '6 gripper'."""
        return f"{dim} {self.names[dim]}" if self.names else str(dim)

    def labels(self) -> str:
        """Return all dimensions in one line."""
        return ", ".join(self.label(dim) for dim in range(self.dim))


def read_actions(flags: TokenizerFlags) -> Actions:
    """Read the actions, the states where they are subtracted, and the action's statistics.

    Raises:
        DatasetError: the dataset is not there, is damaged, has no such feature or statistics, or
            holds values that are not finite.
    """
    location = locate(flags.repo_id, _root(flags), flags.revision, None)
    metadata = load_metadata(flags.repo_id, location.root)
    columns = [ACTION, *([flags.state_key] if flags.use_relative_transform else [])]
    for name in columns:
        _check_is_vector(metadata, name)
    mode = NormalizationMode(flags.normalization_mode)
    stats = _stored_stats(metadata, mode)
    needs_quantiles = not stats.keys() >= set(NEEDED_STATS[mode])
    total, limit = metadata.total_episodes, flags.max_episodes
    # Statistics are those of the whole dataset, as a policy will have them.
    needs_all = limit is None or needs_quantiles or scales_relative(flags)
    read = range(total if needs_all else min(limit, total))
    if not read:
        raise DatasetError(f"{metadata.root} holds no episodes; expected at least one.")
    location.fetch(sorted({metadata.episodes.data_paths[episode] for episode in read}))
    frames = load_frames(metadata, read, columns)
    values = _vectors(frames, ACTION)
    if needs_quantiles:
        stats |= {name: array_stats(values)[name] for name in QUANTILES}
    episodes = frames.numeric["episode_index"][frames.episode_bounds[0]]
    order = np.argsort(episodes)[: limit or total]
    actions = Actions(
        repo_id=flags.repo_id,
        values=values,
        states=_vectors(frames, flags.state_key) if flags.use_relative_transform else None,
        episodes=episodes[order],
        starts=frames.episode_bounds[0][order],
        ends=frames.episode_bounds[1][order],
        read_bounds=frames.episode_bounds,
        names=_names(metadata.features[ACTION].get("names"), values.shape[1]),
        stats=stats,
        quantiles_are_computed=needs_quantiles,
        fps=float(metadata.fps),
    )
    _check_finite(actions, actions.values, ACTION)
    if actions.states is not None:
        _check_finite(actions, actions.states, flags.state_key)
    return actions


def scales_relative(flags: TokenizerFlags) -> bool:
    """Return whether chunks are scaled by statistics of relative actions, as policies do it."""
    needs_stats = bool(NEEDED_STATS[NormalizationMode(flags.normalization_mode)])
    return needs_stats and flags.use_relative_transform and not flags.reference


def check_long_enough(actions: Actions, horizon: int) -> None:
    """Make sure that there is a full window.

    Raises:
        DatasetError: no episode is long enough for one.
    """
    longest = int((actions.ends - actions.starts).max())
    if longest < horizon:
        raise DatasetError(
            f"no episode of {actions.repo_id} is as long as one chunk "
            f"(--action_horizon={horizon}): the longest of {len(actions.episodes)} has {longest} "
            f"frames. Give --action_horizon={longest} or less, or a larger --max_episodes."
        )


def _root(flags: TokenizerFlags) -> str | None:
    is_folder = flags.root is None and (Path(flags.repo_id).expanduser() / INFO_PATH).is_file()
    return flags.repo_id if is_folder else flags.root


def _check_is_vector(metadata: DatasetMetadata, name: str) -> None:
    entry = metadata.features.get(name)
    if entry is None:
        raise DatasetError(
            f"the dataset at {metadata.root} has no feature {name!r}; it has "
            f"{', '.join(metadata.features)}.{did_you_mean(name, metadata.features)}"
            + ("" if name == ACTION else " Give another --state_key.")
        )
    if len(entry["shape"]) != 1 or not entry["dtype"].startswith(("float", "int", "uint")):
        raise DatasetError(
            f"feature {name!r} of the dataset at {metadata.root} is {entry['dtype']} of shape "
            f"{list(entry['shape'])}; expected a vector of numbers, such as float32 of shape [7]."
        )


def _stored_stats(metadata: DatasetMetadata, mode: NormalizationMode) -> FeatureStats:
    if not NEEDED_STATS[mode]:
        return {}
    entry = metadata.stats[ACTION]
    # Version 2.1 keeps the shape of what was recorded.
    return {name: values.reshape(-1) for name, values in entry.items() if name != "count"}


def _vectors(frames: FrameTable, name: str) -> np.ndarray:
    values = frames.numeric[name]
    return values.reshape(len(values), -1).astype(np.float32, copy=False)


def _names(stored: object, dim: int) -> tuple[str, ...]:
    """Return the names of the dimensions; older datasets group them, as in {"motors": [...]}."""
    if isinstance(stored, dict) and len(stored) == 1:
        stored = next(iter(stored.values()))
    if not isinstance(stored, list | tuple) or len(stored) != dim:
        return ()
    return tuple(map(str, stored))


def _check_finite(actions: Actions, values: np.ndarray, name: str) -> None:
    is_bad = np.logical_not(np.isfinite(values).all(axis=1))
    for episode, start, end in zip(actions.episodes, actions.starts, actions.ends, strict=True):
        bad = np.flatnonzero(is_bad[start:end])
        if bad.size:
            row = values[start + bad[0]]
            dim = int(np.flatnonzero(~np.isfinite(row))[0])
            raise DatasetError(
                f"{name!r} of episode {episode}, frame {bad[0]}, dimension {dim} is {row[dim]} "
                f"({np.count_nonzero(is_bad)} such frames in all); expected finite numbers. Record "
                "the episode anew, or remove it from the dataset."
            )
