# SPDX-License-Identifier: Apache-2.0
"""Flags of `--dataset.*`: which dataset to read and how to change its images while training.

Names and defaults are LeRobot 0.6.1's. No torch here: the command line must answer `--help`
quickly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vlakit.errors import ConfigError, did_you_mean

VIDEO_BACKENDS = ("pyav", "torchcodec")
FrameCacheKind = Literal["none", "raw", "jpeg"]

TRANSFORM_RANGES: dict[str, tuple[str, ...]] = {
    "ColorJitter": ("brightness", "contrast", "saturation", "hue"),
    "SharpnessJitter": ("sharpness",),
    "RandomAffine": ("degrees", "translate", "fill"),
    "Identity": (),
}
"""Transform types of `tfs` and the keyword arguments each one takes."""


@dataclass(frozen=True, kw_only=True)
class ImageTransformConfig:
    """One entry of `--dataset.image_transforms.tfs`."""

    weight: float = 1.0
    """Chance to be drawn, relative to the other entries."""
    type: str = "Identity"
    """ColorJitter, SharpnessJitter, RandomAffine or Identity."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Ranges of the type, for example {"brightness": [0.8, 1.2]}."""

    def __post_init__(self) -> None:
        if self.type not in TRANSFORM_RANGES:
            raise ConfigError(
                f"image transform type {self.type!r} is unknown; expected one of "
                f"{', '.join(TRANSFORM_RANGES)}.{did_you_mean(self.type, TRANSFORM_RANGES)}"
            )
        allowed = TRANSFORM_RANGES[self.type]
        for name in self.kwargs:
            if name not in allowed:
                raise ConfigError(
                    f"image transform {self.type} has no setting {name!r}; it takes "
                    f"{', '.join(allowed) or 'none'}.{did_you_mean(name, allowed)}"
                )
        if self.weight < 0:
            raise ConfigError(f"image transform weight={self.weight} must be 0 or more.")


def default_transforms() -> dict[str, ImageTransformConfig]:
    """Return LeRobot's six transforms with their ranges."""
    jitter = {
        "brightness": (0.8, 1.2),
        "contrast": (0.8, 1.2),
        "saturation": (0.5, 1.5),
        "hue": (-0.05, 0.05),
    }
    transforms = {
        name: ImageTransformConfig(type="ColorJitter", kwargs={name: list(bounds)})
        for name, bounds in jitter.items()
    }
    transforms["sharpness"] = ImageTransformConfig(
        type="SharpnessJitter", kwargs={"sharpness": [0.5, 1.5]}
    )
    transforms["affine"] = ImageTransformConfig(
        type="RandomAffine", kwargs={"degrees": [-5.0, 5.0], "translate": [0.05, 0.05]}
    )
    return transforms


@dataclass(frozen=True, kw_only=True)
class ImageTransformsConfig:
    """Random changes of camera images in training; see `datasets/image_transforms.py`."""

    enable: bool = False
    """Change the images of every training sample."""
    max_num_transforms: int = 3
    """How many of `tfs` are drawn for each sample."""
    random_order: bool = False
    """Apply the drawn ones in random order instead of the order of `tfs`."""
    tfs: dict[str, ImageTransformConfig] = field(default_factory=default_transforms)
    """The transforms to draw from, by a name of your choice."""

    def __post_init__(self) -> None:
        if self.max_num_transforms < 1:
            raise ConfigError(
                f"--dataset.image_transforms.max_num_transforms={self.max_num_transforms} must be "
                "1 or more; use --dataset.image_transforms.enable=false to switch them off."
            )
        if self.enable and not any(entry.weight > 0 for entry in self.tfs.values()):
            raise ConfigError(
                "--dataset.image_transforms.tfs has no entry of positive weight; give one or use "
                "--dataset.image_transforms.enable=false."
            )


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Which dataset to train on and how to read it."""

    repo_id: str
    """Hub id such as lerobot/pusht. With `root` it is only a label."""
    root: str | None = None
    """Local dataset folder (the one that holds meta/)."""
    episodes: list[int] | None = None
    """Use only these episodes; nothing else is downloaded."""
    revision: str | None = None
    """Hub branch, tag or commit; default is the tag v3.0."""
    image_transforms: ImageTransformsConfig = field(default_factory=ImageTransformsConfig)
    """Random image changes."""
    use_imagenet_stats: bool = True
    """Normalise cameras with ImageNet's mean and std instead of the dataset's."""
    video_backend: str | None = None
    """pyav (default) or torchcodec, which must be installed."""
    return_uint8: bool = False
    """Accepted for LeRobot's commands; training always reads cameras as uint8 (equal values)."""
    streaming: bool = False
    """Not supported: the dataset is read from disk."""
    eval_split: float = 0.0
    """Share of each task's episodes, the last ones, held out for the evaluation loss."""
    cache_frames: bool = False
    """Decode every camera once and keep the frames in memory (vlakit only)."""
    frame_cache: FrameCacheKind = "none"
    """Decode every camera once, into files that later runs use too (vlakit only). raw frames are
    equal to decoded ones and large; jpeg ones are small, and off by what the run says."""
    frame_cache_dir: str | None = None
    """Folder of these files; default frame_cache under $HF_LEROBOT_HOME (vlakit only)."""

    def __post_init__(self) -> None:
        if self.video_backend is not None and self.video_backend not in VIDEO_BACKENDS:
            raise ConfigError(
                f"--dataset.video_backend={self.video_backend} is unknown; expected "
                f"{' or '.join(VIDEO_BACKENDS)}."
            )
        if self.streaming:
            raise ConfigError(
                "--dataset.streaming=true is not supported: a streamed order cannot be resumed. "
                "Leave it out; use --dataset.episodes to download only a part."
            )
        if self.cache_frames and self.frame_cache != "none":
            raise ConfigError(
                f"--dataset.cache_frames=true keeps frames in memory and --dataset.frame_cache="
                f"{self.frame_cache} on disk: give one of the two."
            )
        if self.frame_cache_dir is not None and self.frame_cache == "none":
            raise ConfigError(
                f"--dataset.frame_cache_dir={self.frame_cache_dir} is not used: give "
                "--dataset.frame_cache=raw or jpeg with it."
            )
        if not 0.0 <= self.eval_split < 1.0:
            raise ConfigError(f"--dataset.eval_split={self.eval_split} must be in [0, 1).")
        check_episodes(self.episodes)


def check_episodes(episodes: Sequence[int] | None) -> None:
    """Raise ConfigError when `episodes` cannot name episodes."""
    if episodes is None:
        return
    if len(episodes) == 0:
        raise ConfigError("--dataset.episodes=[] selects nothing; leave it out to use all.")
    if min(episodes) < 0 or len(set(episodes)) != len(episodes):
        raise ConfigError(
            f"--dataset.episodes={list(episodes)} must be distinct numbers from 0 upwards."
        )
