# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from vlakit.datasets.config import DatasetConfig, ImageTransformConfig, ImageTransformsConfig
from vlakit.errors import ConfigError


def test_defaults_are_lerobots() -> None:
    config = DatasetConfig(repo_id="x")
    assert (config.use_imagenet_stats, config.streaming, config.eval_split) == (True, False, 0.0)
    transforms = config.image_transforms
    assert (transforms.enable, transforms.max_num_transforms, transforms.random_order) == (
        False,
        3,
        False,
    )
    assert {name: entry.kwargs for name, entry in transforms.tfs.items()} == {
        "brightness": {"brightness": [0.8, 1.2]},
        "contrast": {"contrast": [0.8, 1.2]},
        "saturation": {"saturation": [0.5, 1.5]},
        "hue": {"hue": [-0.05, 0.05]},
        "sharpness": {"sharpness": [0.5, 1.5]},
        "affine": {"degrees": [-5.0, 5.0], "translate": [0.05, 0.05]},
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"video_backend": "opencv"}, r"--dataset\.video_backend=opencv is unknown; expected pyav"),
        ({"streaming": True}, r"--dataset\.streaming=true is not supported"),
        ({"eval_split": 1.0}, r"--dataset\.eval_split=1\.0 must be in \[0, 1\)"),
        ({"episodes": []}, r"--dataset\.episodes=\[\] selects nothing"),
        ({"episodes": [1, 1]}, r"--dataset\.episodes=\[1, 1\] must be distinct"),
        ({"episodes": [-1]}, r"--dataset\.episodes=\[-1\] must be distinct numbers from 0"),
    ],
)
def test_wrong_flags(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DatasetConfig(repo_id="x", **settings)


def test_wrong_transforms() -> None:
    with pytest.raises(ConfigError, match=r"'ColorJiter' is unknown.*Did you mean 'ColorJitter'"):
        ImageTransformConfig(type="ColorJiter")
    with pytest.raises(ConfigError, match=r"has no setting 'brigtness'.*Did you mean 'brightness'"):
        ImageTransformConfig(type="ColorJitter", kwargs={"brigtness": [1, 1]})
    with pytest.raises(ConfigError, match="weight=-1 must be 0 or more"):
        ImageTransformConfig(weight=-1)
    with pytest.raises(ConfigError, match="max_num_transforms=0 must be 1 or more"):
        ImageTransformsConfig(max_num_transforms=0)
    with pytest.raises(ConfigError, match="no entry of positive weight"):
        ImageTransformsConfig(enable=True, tfs={"x": ImageTransformConfig(weight=0)})
