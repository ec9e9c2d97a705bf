# SPDX-License-Identifier: Apache-2.0
"""Images in a square frame, and cameras that are not there."""

from __future__ import annotations

import pytest
import torch

from vlakit.errors import ProcessingError
from vlakit.policies.pi0_fast.images import camera_images, fit_images

CPU = torch.device("cpu")


def test_an_image_of_the_right_size_is_only_shifted() -> None:
    image = torch.rand(2, 3, 28, 28) * 1.5
    assert torch.equal(fit_images(image, 28, 28), image * 2 - 1)


def test_uint8_images_give_what_floats_give() -> None:
    image = torch.randint(0, 256, (2, 3, 20, 40), dtype=torch.uint8)
    assert torch.equal(fit_images(image, 28, 28), fit_images(image.float() / 255, 28, 28))


@pytest.mark.parametrize(
    ("size", "above", "left", "inner"),
    [
        ((28, 56), 7, 0, (14, 28)),
        ((56, 28), 0, 7, (28, 14)),
        ((10, 28), 9, 0, (10, 28)),
        ((9, 28), 9, 0, (9, 28)),
    ],
)
def test_a_picture_is_centred_on_black(
    size: tuple[int, int], above: int, left: int, inner: tuple[int, int]
) -> None:
    fitted = fit_images(torch.ones(1, 3, *size), 28, 28)
    frame = torch.full((1, 3, 28, 28), -1.0)
    frame[..., above : above + inner[0], left : left + inner[1]] = 1.0
    assert torch.equal(fitted, frame)


def images(batch: dict[str, torch.Tensor], optional: tuple[str, ...]) -> tuple:
    return camera_images(
        batch, ["a", "b", "c"], may_be_missing=optional, resolution=(14, 14), device=CPU
    )


def test_missing_cameras_come_last_and_are_masked() -> None:
    batch = {"a": torch.zeros(2, 3, 14, 14), "c": torch.ones(2, 3, 14, 14)}
    stacked, mask = images(batch, ("b",))
    assert stacked.shape == (2, 3, 3, 14, 14)
    assert stacked[0, :, 0, 0, 0].tolist() == [-1.0, 1.0, -1.0]
    assert mask.tolist() == [[True, True, False]] * 2


def test_missing_cameras_are_named_and_so_are_other_shapes() -> None:
    with pytest.raises(ProcessingError, match=r"\['b', 'c'\] missing"):
        images({"a": torch.zeros(1, 3, 14, 14)}, ())
    with pytest.raises(ProcessingError, match="none of the policy's cameras"):
        images({}, ("a", "b", "c"))
    with pytest.raises(ProcessingError, match=r"'a' has the shape \[1, 14, 14, 3\]"):
        images({"a": torch.zeros(1, 14, 14, 3)}, ("b", "c"))


@pytest.mark.parametrize("size", [(1, 29), (400, 3)])
def test_an_image_of_which_nothing_is_left_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ProcessingError, match=f"{size[0]} x {size[1]} is too narrow"):
        fit_images(torch.ones(1, 3, *size), 28, 28)
