# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tests.unit.environments.toy import ToyEnvConfig
from vlakit.environments.config import MetaworldEnvConfig
from vlakit.errors import ConfigError, ProcessingError
from vlakit.evaluation.planner import check_fit
from vlakit.features import FeatureType, PolicyFeature
from vlakit.policies.eo1.config import EO1Config


def config(camera: str = "observation.image", *, size: int = 480, dims: int = 4) -> EO1Config:
    return EO1Config(
        device="cpu",
        input_features={
            camera: PolicyFeature(FeatureType.VISUAL, (3, size, size)),
            "observation.state": PolicyFeature(FeatureType.STATE, (dims,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (dims,))},
    )


def test_what_fits_gives_no_note() -> None:
    assert check_fit(config(), MetaworldEnvConfig(), {}) == []


def test_another_picture_size_is_said() -> None:
    (note,) = check_fit(config(size=84), MetaworldEnvConfig(), {})
    assert "480x480 here, but the checkpoint saw 84x84" in note
    assert "--env.observation_height=84 --env.observation_width=84" in note


def test_a_missing_camera_comes_with_the_map_to_type() -> None:
    wanted = "observation.images.top"
    words = r"""--rename_map='\{"observation.image": "observation.images.top"\}'"""
    with pytest.raises(ProcessingError, match=words):
        check_fit(config(wanted), MetaworldEnvConfig(), {})
    assert check_fit(config(wanted), MetaworldEnvConfig(), {"observation.image": wanted}) == []


def test_a_map_that_is_not_needed_is_refused() -> None:
    with pytest.raises(ConfigError, match="leave it out"):
        check_fit(config(), MetaworldEnvConfig(), {"observation.image": "observation.images.x"})


def test_a_map_with_a_name_the_environment_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"imag'.*Did you mean 'observation\.image'"):
        check_fit(config(), MetaworldEnvConfig(), {"observation.imag": "observation.images.x"})


def test_another_robot_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"observation.state with 4 dimensions.*has 3 dim"):
        check_fit(config(size=8), ToyEnvConfig(), {})
