# SPDX-License-Identifier: Apache-2.0
"""Scaling of state, action and images by the statistics of a dataset, and back.

    mode        forward                       inverse
    IDENTITY    x                             x
    MEAN_STD    (x - mean) / (std + eps)      x * std + mean
    MIN_MAX     2 (x - min) / range - 1       (x + 1) / 2 * range + min,   range = max - min
    QUANTILES   as MIN_MAX with q01, q99      as MIN_MAX
    QUANTILE10  as MIN_MAX with q10, q90      as MIN_MAX

Nothing is clipped. A *near-constant* dimension (its range below one millionth of its magnitude, or
below 1e-8) would be divided by rounding noise; LeRobot divides by eps, or by 1e-15 where the
quantiles differ in the last bit. Here its range becomes the full range of the data where that is
wider, and at least one hundredth of its magnitude or of 1. Every other dimension keeps LeRobot's
arithmetic to the bit.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vlakit.errors import CheckpointError, ProcessingError
from vlakit.features import (
    ACTION,
    EMPTY_CAMERA,
    NEEDED_STATS,
    OBS_PREFIX,
    FeatureType,
    NormalizationMode,
    PolicyFeature,
)
from vlakit.processing.step import Step

logger = logging.getLogger(__name__)

NEAR_CONSTANT_RELATIVE = 1e-6
NEAR_CONSTANT_ABSOLUTE = 1e-8
FLOOR_FRACTION = 1e-2

Stats = Mapping[str, Mapping[str, Any]]
Floor = Literal["magnitude", "reference"]


class _Scaling(Step):
    """What both directions share: configuration, statistics and their cache."""

    def __init__(
        self,
        features: Mapping[str, Any],
        norm_map: Mapping[Any, Any],
        stats: Stats | None = None,
        eps: float = 1e-8,
        normalize_observation_keys: list[str] | None = None,
        floor: Floor = "magnitude",
    ) -> None:
        """Take the configuration of LeRobot's step of the same name.

        Args:
            features: policy features by name, or their JSON entries.
            norm_map: mode by feature type; types left out are IDENTITY.
            stats: statistics by feature and name; `load_state` sets them otherwise.
            eps: added to std, and put where a range is zero under `floor="reference"`.
            normalize_observation_keys: observations to scale, all by default.
            floor: "magnitude" widens near-constant dimensions, "reference" does as LeRobot.
        """
        self.features = {
            name: entry if isinstance(entry, PolicyFeature) else PolicyFeature.from_json(entry)
            for name, entry in features.items()
        }
        self.norm_map = {
            FeatureType(kind): NormalizationMode(mode) for kind, mode in norm_map.items()
        }
        self.eps = eps
        self.only_keys = normalize_observation_keys
        self.floor = floor
        self._set_stats(stats or {})

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_cache": {}}  # may hold tensors on a GPU, which stay where they are

    def _set_stats(self, stats: Stats) -> None:
        self.stats = {
            name: {stat: _float32(value) for stat, value in entry.items()}
            for name, entry in stats.items()
        }
        self._cache: dict[tuple[str, torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "eps": self.eps,
            "features": {name: feature.to_json() for name, feature in self.features.items()},
            "norm_map": {kind.value: mode.value for kind, mode in self.norm_map.items()},
        }
        if self.only_keys is not None:
            config["normalize_observation_keys"] = sorted(self.only_keys)
        return config

    def state(self) -> dict[str, Tensor]:
        return {
            f"{name}.{stat}": value
            for name, entry in self.stats.items()
            for stat, value in entry.items()
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        stats: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            name, _, stat = key.rpartition(".")
            if not name:
                raise CheckpointError(
                    f"the tensor {key!r} of a normaliser's state file has no '<feature>.<stat>' "
                    "name. Fetch or save the checkpoint again."
                )
            stats.setdefault(name, {})[stat] = value
        self._set_stats(stats)

    def mode_of(self, name: str) -> NormalizationMode:
        """Return how a feature is scaled."""
        feature = self.features.get(name)
        if feature is None:
            return NormalizationMode.IDENTITY
        return self.norm_map.get(feature.type, NormalizationMode.IDENTITY)

    def check(self, entries: Mapping[str, Any]) -> None:
        """Make sure that every scaled feature has its statistics; empty cameras have none.

        Raises:
            ProcessingError: one is missing; the message names feature, statistic and remedy.
        """
        for name in self.features:
            if name in self.stats or not name.startswith(EMPTY_CAMERA):
                self._needed(name)

    def near_constant(self) -> dict[str, list[int]]:
        """Return the dimensions whose range is widened, by feature; needs statistics."""
        found = {}
        for name in self.features:
            if self.mode_of(name) is NormalizationMode.IDENTITY or self.floor == "reference":
                continue
            if name not in self.stats:
                continue
            mask, _ = self._near_constant(name)
            if mask.any():
                found[name] = torch.nonzero(mask.flatten()).flatten().tolist()
        return found

    def _needed(self, name: str) -> list[Tensor]:
        mode = self.mode_of(name)
        entry = self.stats.get(name, {})
        for stat in NEEDED_STATS[mode]:
            if stat not in entry:
                raise ProcessingError(_missing_message(name, stat, mode, self.stats))
            if not torch.isfinite(entry[stat]).all():
                raise ProcessingError(
                    f"the statistic {stat!r} of {name!r} is not finite "
                    f"({entry[stat].flatten().tolist()}); expected numbers. Look for NaN in the "
                    "dataset and recompute its statistics, or fetch the checkpoint again."
                )
        return [self._shaped(name, entry[stat]) for stat in NEEDED_STATS[mode]]

    def _shaped(self, name: str, stat: Tensor) -> Tensor:
        # Image statistics may come as (channels,) and must meet (channels, height, width).
        is_image = self.features[name].type is FeatureType.VISUAL
        return stat.reshape(-1, 1, 1) if is_image and stat.ndim == 1 else stat

    def _near_constant(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the mask of near-constant dimensions and the range they get instead."""
        first, second = self._needed(name)
        is_mean_std = self.mode_of(name) is NormalizationMode.MEAN_STD
        spread = second if is_mean_std else second - first
        magnitude = first.abs() if is_mean_std else torch.maximum(first.abs(), second.abs())
        full = torch.zeros_like(spread)
        threshold = (NEAR_CONSTANT_RELATIVE * magnitude).clamp_min(NEAR_CONSTANT_ABSOLUTE)
        mask = spread <= threshold
        entry = self.stats[name]
        if "min" in entry and "max" in entry:
            low, high = (self._shaped(name, entry[stat]) for stat in ("min", "max"))
            full = high - low
            # A std from E[x^2] - E[x]^2 has rounding noise; equal extremes have none.
            mask = mask | (full <= threshold)
        return mask, torch.maximum(full, FLOOR_FRACTION * magnitude.clamp_min(1.0))

    def _offset_and_range(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what to subtract and what to divide by, in the dtype and on the device of x."""
        key = (name, x.dtype, x.device)
        if key not in self._cache:
            # Parity: LeRobot casts the statistics first and subtracts in the dtype of x.
            first, second = (stat.to(x.device, x.dtype) for stat in self._needed(name))
            spread = second
            if self.mode_of(name) is not NormalizationMode.MEAN_STD:
                spread = second - first
            if self.floor == "magnitude":
                mask, floor = (value.to(x.device) for value in self._near_constant(name))
                spread = torch.where(mask, floor.to(x.dtype), spread)
            elif self.mode_of(name) is not NormalizationMode.MEAN_STD:
                spread = torch.where(spread == 0, torch.full_like(spread, self.eps), spread)
            self._cache[key] = (first, spread)
        offset, spread = self._cache[key]
        if x.shape[-1] != offset.shape[-1] and offset.shape[-1] != 1:
            raise ProcessingError(
                f"{name!r} has {x.shape[-1]} dimensions, its statistics have {offset.shape[-1]}: "
                "the batch does not come from the robot that the checkpoint was made for."
            )
        return offset, spread

    def _scale(self, name: str, x: Tensor) -> Tensor:
        raise NotImplementedError

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with every feature that has a mode scaled."""
        scaled = dict(batch)
        for name in self.features:
            x = batch.get(name)
            if x is None or self.mode_of(name) is NormalizationMode.IDENTITY:
                continue
            if self.only_keys is not None and name != ACTION and name not in self.only_keys:
                continue
            if name == ACTION or name.startswith(OBS_PREFIX):
                scaled[name] = self._scale(name, x)
        return scaled


def _float32(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(torch.float32)
    return torch.from_numpy(np.array(value, dtype=np.float32))


class Normalizer(_Scaling):
    """Scales observations and action into the policy's range."""

    registry_name = "normalizer_processor"
    _reported = False

    def check(self, entries: Mapping[str, Any]) -> None:
        """Check the statistics and log the near-constant dimensions, once, in one line."""
        super().check(entries)
        found = {} if self._reported else self.near_constant()
        self._reported = True
        if found:
            logger.warning(
                "near-constant dimensions, scaled by a floored range: %s",
                "; ".join(f"{name} {dims}" for name, dims in found.items()),
            )

    def _scale(self, name: str, x: Tensor) -> Tensor:
        offset, spread = self._offset_and_range(name, x)
        if self.mode_of(name) is NormalizationMode.MEAN_STD:
            return (x - offset) / (spread + self.eps)
        return 2 * (x - offset) / spread - 1


class Unnormalizer(_Scaling):
    """Scales the policy's output back into the robot's units."""

    registry_name = "unnormalizer_processor"

    def _scale(self, name: str, x: Tensor) -> Tensor:
        offset, spread = self._offset_and_range(name, x)
        if self.mode_of(name) is NormalizationMode.MEAN_STD:
            return x * spread + offset  # Parity: LeRobot adds eps one way only.
        return (x + 1) / 2 * spread + offset


def _missing_message(name: str, stat: str, mode: NormalizationMode, stats: Stats) -> str:
    given = sorted(stats.get(name, {}))
    have = f"it has {given}" if given else f"there are statistics for {sorted(stats)}"
    remedy = (
        "recompute the statistics of the dataset (vlakit.datasets.stats.compute_stats; datasets of "
        "version 2.1 carry no quantiles)"
        if given
        else "pass the statistics of the dataset (stats=dataset.meta.stats)"
    )
    return (
        f"{name!r} is scaled by {mode.value}, which needs the statistic {stat!r}; {have}. "
        f"Either {remedy} or set another mode with --policy.normalization_mapping."
    )
