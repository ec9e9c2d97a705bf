# SPDX-License-Identifier: Apache-2.0
"""Names of features and their types: the words that datasets, processors and policies share.

A *feature* is one named signal of a robot, such as `observation.state` or
`observation.images.top`. Its name decides what a policy does with it, exactly as in LeRobot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

ACTION = "action"
OBS_STATE = "observation.state"
OBS_ENV_STATE = "observation.environment_state"
OBS_IMAGE = "observation.image"
OBS_IMAGES = "observation.images"
EMPTY_CAMERA = f"{OBS_IMAGES}.empty_camera_"
"""What the name of a camera begins with that no batch has: a masked image stands for it."""
OBS_PREFIX = "observation."
TASK = "task"
ACTION_IS_PAD = "action_is_pad"
ACTION_TOKENS = "action.tokens"
ACTION_TOKEN_MASK = "action.token_mask"
ACTION_ANCHOR = "action.anchor"
"""The state that relative actions are relative to; see `processing/relative_actions.py`."""
LANGUAGE_TOKENS = "observation.language.tokens"
LANGUAGE_MASK = "observation.language.attention_mask"

DEFAULT_FEATURES: dict[str, dict[str, Any]] = {
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    "index": {"dtype": "int64", "shape": [1], "names": None},
    "task_index": {"dtype": "int64", "shape": [1], "names": None},
}
"""Columns that a writer adds by itself to every dataset."""

CAMERA_DTYPES = ("image", "video")


class FeatureType(StrEnum):
    """What a policy takes a feature for. Values are LeRobot's spelling in `config.json`."""

    STATE = "STATE"
    VISUAL = "VISUAL"
    ENV = "ENV"
    ACTION = "ACTION"


class NormalizationMode(StrEnum):
    """How a feature is scaled before the policy sees it; see `processing/normalize.py`."""

    IDENTITY = "IDENTITY"
    MEAN_STD = "MEAN_STD"
    MIN_MAX = "MIN_MAX"
    QUANTILES = "QUANTILES"
    QUANTILE10 = "QUANTILE10"


NEEDED_STATS: dict[NormalizationMode, tuple[str, ...]] = {
    NormalizationMode.IDENTITY: (),
    NormalizationMode.MEAN_STD: ("mean", "std"),
    NormalizationMode.MIN_MAX: ("min", "max"),
    NormalizationMode.QUANTILES: ("q01", "q99"),
    NormalizationMode.QUANTILE10: ("q10", "q90"),
}
"""Statistics that a mode scales by, in the order of the formulas in `processing/normalize.py`."""


@dataclass(frozen=True)
class PolicyFeature:
    """One input or output of a policy. Images are (channels, height, width)."""

    type: FeatureType
    shape: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the entry as `config.json` stores it."""
        return {"type": self.type.value, "shape": list(self.shape)}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> PolicyFeature:
        """Read an entry of `config.json`."""
        return cls(type=FeatureType(entry["type"]), shape=tuple(entry["shape"]))


def feature_type(name: str, dtype: str) -> FeatureType | None:
    """Return what a policy takes the dataset feature for, or None when policies ignore it."""
    if dtype in CAMERA_DTYPES:
        return FeatureType.VISUAL
    if name == OBS_ENV_STATE:
        return FeatureType.ENV
    if name.startswith("observation"):
        return FeatureType.STATE
    if name.startswith(ACTION):
        return FeatureType.ACTION
    return None


def policy_features(dataset_features: Mapping[str, Mapping[str, Any]]) -> dict[str, PolicyFeature]:
    """Return the features a policy can use, from the `features` of a dataset's `info.json`.

    Camera shapes come back as (channels, height, width): a dataset writes (height, width, channels)
    and says so in the feature's names.
    """
    features = {}
    for name, entry in dataset_features.items():
        kind = feature_type(name, entry["dtype"])
        if kind is None:
            continue
        shape = tuple(entry["shape"])
        names = entry.get("names") or []
        if kind is FeatureType.VISUAL and len(names) == 3 and names[2] in ("channel", "channels"):
            shape = (shape[2], shape[0], shape[1])
        features[name] = PolicyFeature(type=kind, shape=shape)
    return features
