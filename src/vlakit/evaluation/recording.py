# SPDX-License-Identifier: Apache-2.0
"""A dataset as something to play again: per task its episodes, their starts, what was executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlakit.datasets import LeRobotDataset
from vlakit.environments.base import EnvConfig, TaskEntry
from vlakit.environments.collection_record import CollectionRecord, read_record
from vlakit.environments.expert_episode import with_noise
from vlakit.errors import ConfigError, did_you_mean
from vlakit.features import ACTION, OBS_PREFIX


@dataclass(frozen=True)
class RecordedEpisode:
    """One episode of the dataset."""

    index: int
    """Its number in the dataset."""
    seed: int
    """What the simulator is reset with."""
    actions: NDArray[np.float32]
    """What was executed, (steps, action_dim)."""


class Recording:
    """The episodes of a dataset that belong to the tasks of a simulator.

    Args:
        name: Repository of the dataset, or its folder.
        env: Simulator and tasks.
        max_episodes: Of each task, the first ones.
        first_seed: For datasets that do not know their seeds.

    Raises:
        DatasetError: There is no such dataset, or it is damaged.
        ConfigError: A task has no episode in it, or its features are not the simulator's.
    """

    def __init__(self, name: str, env: EnvConfig, *, max_episodes: int, first_seed: int) -> None:
        self.name = name
        self._dataset = open_dataset(name)
        self.record = read_record(Path(self._dataset.root))
        _check_features(self._dataset, env)
        chosen = _episodes_by_task(self._dataset, env, self.record)
        self.episodes: dict[str, list[RecordedEpisode]] = {
            task: [
                self._episode(index, first_seed + number)
                for number, index in enumerate(indices[:max_episodes])
            ]
            for task, indices in chosen.items()
        }

    @property
    def knows_starts(self) -> bool:
        """Whether the dataset says where its episodes began."""
        return bool(self.record.starts)

    @property
    def seeds(self) -> dict[str, Sequence[int]]:
        """Task -> the seeds of its episodes."""
        return {task: [e.seed for e in episodes] for task, episodes in self.episodes.items()}

    @property
    def longest(self) -> int:
        """Steps of the longest episode."""
        return max(len(e.actions) for episodes in self.episodes.values() for e in episodes)

    @property
    def feature_names(self) -> Mapping[str, Mapping[str, Any]]:
        """The dataset's features."""
        return self._dataset.meta.features

    def find(self, task: str, seed: int) -> RecordedEpisode:
        """Return the episode of a task that began with a seed."""
        return next(episode for episode in self.episodes[task] if episode.seed == seed)

    def observation(self, episode: RecordedEpisode, step: int) -> dict[str, NDArray[Any]]:
        """Return what was recorded at a step: cameras uint8 (height, width, 3), vectors (n,)."""
        row = int(self._dataset.frames.episode_bounds[0][episode.index]) + step
        seen: dict[str, NDArray[Any]] = {}
        for name in self._dataset.meta.features:
            if not name.startswith(OBS_PREFIX):
                continue
            if name in self._dataset.meta.camera_keys:
                picture = self._dataset.read_images(name, np.array([row]))[0]
                seen[name] = picture.permute(1, 2, 0).numpy()
            elif name in self._dataset.frames.numeric:
                seen[name] = self._dataset.frames.numeric[name][row]
        return seen

    def _episode(self, index: int, other_seed: int) -> RecordedEpisode:
        first, end = (int(bound[index]) for bound in self._dataset.frames.episode_bounds)
        actions = self._dataset.frames.numeric[ACTION][first:end]
        start = self.record.starts.get(index)
        if start is None:
            return RecordedEpisode(index, other_seed, actions)
        executed = with_noise(actions, start.seed, self.record.noise)
        return RecordedEpisode(index, start.seed, executed)


def open_dataset(name: str) -> LeRobotDataset:
    """Return a dataset given by its folder or its repository."""
    if Path(name).expanduser().is_dir():
        return LeRobotDataset(name, root=name)
    return LeRobotDataset(name)


def _episodes_by_task(
    dataset: LeRobotDataset, env: EnvConfig, record: CollectionRecord
) -> dict[str, list[int]]:
    entries = env.task_list()
    by_words = {_plain(env.instruction(entry.name)): entry.name for entry in entries}
    found: dict[str, list[int]] = {entry.name: [] for entry in entries}
    for index in range(dataset.meta.total_episodes):
        start = record.starts.get(index)
        words = dataset.meta.episodes.tasks[index]
        task = by_words.get(_plain(words[0])) if start is None else start.task
        if task in found:
            found[task].append(index)
    _check_found(found, entries, dataset, env)
    return found


def _plain(words: str) -> str:
    return " ".join(words.lower().replace("_", " ").strip(" .").split())


def _check_found(
    found: Mapping[str, Sequence[int]],
    entries: Sequence[TaskEntry],
    dataset: LeRobotDataset,
    env: EnvConfig,
) -> None:
    for entry in entries:
        if not found[entry.name]:
            words = env.instruction(entry.name)
            hint = did_you_mean(words, dataset.meta.tasks)
            raise ConfigError(
                f"--replay: the dataset has no episode of --env.task={entry.name} (“{words}”), "
                f"only of {', '.join(f'“{task}”' for task in dataset.meta.tasks[:5])}.{hint} Give "
                "tasks that were recorded."
            )


def _check_features(dataset: LeRobotDataset, env: EnvConfig) -> None:
    recorded, given = dataset.meta.features, env.features()
    for name, entry in given.items():
        if name not in recorded:
            raise ConfigError(
                f"--replay: the simulator gives {name}, which the dataset lacks; it has "
                f"{', '.join(n for n in recorded if n == ACTION or n.startswith(OBS_PREFIX))}. "
                "Give the --env flags that it was recorded with."
            )
        shapes = tuple(recorded[name]["shape"]), tuple(entry["shape"])
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"--replay: {name} was recorded as {shapes[0]}, but is {shapes[1]} with these "
                "--env flags. Give those that it was recorded with."
            )
