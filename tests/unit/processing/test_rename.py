# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from vlakit.errors import ProcessingError
from vlakit.processing.rename import (
    RenameObservations,
    check_cameras,
    closest_rename_map,
    rename_keys,
)

TOP, WRIST = "observation.images.top", "observation.images.wrist"


def test_two_names_can_be_swapped() -> None:
    step = RenameObservations({TOP: WRIST, WRIST: TOP})
    assert step({TOP: 1, WRIST: 2, "task": "x"}) == {WRIST: 1, TOP: 2, "task": "x"}


def test_the_padding_mask_of_a_feature_follows_it() -> None:
    assert rename_keys({f"{TOP}_is_pad": 1}, {TOP: WRIST}) == {f"{WRIST}_is_pad": 1}


def test_two_entries_cannot_get_one_name() -> None:
    with pytest.raises(
        ProcessingError, match=r"gives two entries the name 'observation\.images\.w"
    ):
        RenameObservations({TOP: WRIST})({TOP: 1, WRIST: 2})


def test_a_missing_camera_is_answered_with_the_closest_rename_map() -> None:
    given = {"observation.images.wrist_cam": 0, "observation.images.top_cam": 0}
    with pytest.raises(ProcessingError) as error:
        check_cameras(given, [TOP, WRIST])
    assert '"observation.images.wrist_cam": "observation.images.wrist"' in str(error.value)
    assert '"observation.images.top_cam": "observation.images.top"' in str(error.value)


def test_a_batch_without_cameras_is_told_so() -> None:
    with pytest.raises(ProcessingError, match="the batch has none"):
        check_cameras({"observation.state": 0}, [TOP])


def test_extra_cameras_are_no_error() -> None:
    check_cameras({TOP: 0, WRIST: 0}, [TOP])


def test_names_that_fit_already_are_left_out_of_the_guess() -> None:
    assert closest_rename_map(["observation.image", TOP], [TOP, WRIST]) == {
        "observation.image": WRIST
    }
