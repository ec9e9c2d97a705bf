# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import colorsys
import pickle

import pytest
import torch
from torch import Tensor

from vlakit.datasets.config import ImageTransformConfig, ImageTransformsConfig
from vlakit.datasets.image_transforms import ImageTransforms
from vlakit.errors import ConfigError


def one(type: str, **kwargs: object) -> ImageTransforms:
    entry = ImageTransformConfig(type=type, kwargs=kwargs)
    return ImageTransforms(ImageTransformsConfig(enable=True, tfs={"only": entry}))


def images(n: int = 4, height: int = 12, width: int = 16) -> Tensor:
    return torch.rand(n, 3, height, width)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_brightness_multiplies() -> None:
    x = images()
    torch.testing.assert_close(one("ColorJitter", brightness=[0.5, 0.5])(x), x * 0.5)


def test_contrast_zero_is_the_mean_grey() -> None:
    x = images()
    grey = 0.2989 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
    expected = grey.mean(dim=(1, 2))[:, None, None, None].expand_as(x)
    torch.testing.assert_close(one("ColorJitter", contrast=[0.0, 0.0])(x), expected)


def test_saturation_zero_is_grey_and_one_changes_nothing() -> None:
    x = images()
    grey = one("ColorJitter", saturation=[0.0, 0.0])(x)
    torch.testing.assert_close(grey[:, 0], grey[:, 2])
    torch.testing.assert_close(one("ColorJitter", saturation=[1.0, 1.0])(x), x)


@pytest.mark.parametrize("turn", [-0.5, -0.05, 0.0, 0.03, 0.4])
def test_hue_turns_the_colour_circle(turn: float) -> None:
    x = images(1, 3, 4)
    changed = one("ColorJitter", hue=[turn, turn])(x)[0].flatten(1).T
    for before, after in zip(x[0].flatten(1).T.tolist(), changed.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
        assert after == pytest.approx(expected, abs=1e-5)


def test_sharpness_zero_smooths_the_inside_and_keeps_the_border() -> None:
    x = images()
    smooth = one("SharpnessJitter", sharpness=[0.0, 0.0])(x)
    window = x[:, :, 2:5, 3:6]
    expected = (window.sum(dim=(2, 3)) + 4 * window[:, :, 1, 1]) / 13
    torch.testing.assert_close(smooth[:, :, 3, 4], expected)
    torch.testing.assert_close(smooth[:, :, 0], x[:, :, 0])


@pytest.mark.parametrize("fill", ["black", "edge"])
def test_a_shift_moves_whole_pixels(fill: str) -> None:
    x = images(n=32)
    moved = one("RandomAffine", degrees=0.0, translate=[0.2, 0.2], fill=fill)(x, seeded(0))
    shifts = set()
    for before, after in zip(x, moved, strict=True):
        hits = []
        for dx in range(-3, 4):
            for dy in range(-2, 3):
                shifted = torch.roll(before, (dy, dx), dims=(1, 2))
                inside = (slice(None), slice(2, -2), slice(3, -3))
                if torch.equal(shifted[inside], after[inside]):
                    hits.append((dx, dy))
        assert len(hits) == 1
        shifts.add(hits[0])
        if fill == "black" and hits[0][0] == 3:
            assert after[:, :, :3].abs().sum() == 0
    assert len(shifts) > 10


def test_edge_fill_repeats_the_border() -> None:
    x = images(n=16)
    moved = one("RandomAffine", degrees=0.0, translate=[0.3, 0.3], fill="edge")(x, seeded(1))
    assert (moved > 0).float().mean() > 0.99
    for before, after in zip(x, moved, strict=True):
        assert set(after.flatten().tolist()) <= set(before.flatten().tolist())


def test_a_right_angle_rotates_exactly() -> None:
    x = images(height=12, width=12)
    turned = one("RandomAffine", degrees=[90.0, 90.0])(x)
    torch.testing.assert_close(turned, torch.rot90(x, -1, dims=(2, 3)))  # clockwise


def test_the_default_set_is_deterministic_and_stays_in_range() -> None:
    transforms = ImageTransforms(ImageTransformsConfig(enable=True))
    x = images(n=16)
    first, second = transforms(x, seeded(5)), transforms(x, seeded(5))
    assert torch.equal(first, second)
    assert not torch.equal(first, transforms(x, seeded(6)))
    assert first.min() >= 0
    assert first.max() <= 1
    assert (first != x).flatten(1).any(dim=1).all()


def test_a_generator_moves_on_by_the_same_amount_whatever_is_drawn() -> None:
    small, large = seeded(3), seeded(3)
    few = {"a": ImageTransformConfig(type="ColorJitter", kwargs={"brightness": [0.8, 1.2]})}
    for generator, bounds in ((small, [0.8, 1.2]), (large, [1.0, 1.0])):
        few["a"] = ImageTransformConfig(type="ColorJitter", kwargs={"brightness": bounds})
        ImageTransforms(ImageTransformsConfig(enable=True, tfs=dict(few)))(images(), generator)
    assert torch.equal(small.get_state(), large.get_state())


def test_uint8_is_the_rounded_float_result() -> None:
    transforms = ImageTransforms(ImageTransformsConfig(enable=True))
    x = torch.randint(0, 256, (8, 3, 12, 16), dtype=torch.uint8)
    changed = transforms(x, seeded(2))
    expected = transforms(x.float() / 255, seeded(2))
    assert changed.dtype == torch.uint8
    assert (changed.float() / 255 - expected).abs().max() <= 0.5 / 255 + 1e-6


def test_frames_of_one_sample_get_the_same_change() -> None:
    transforms = ImageTransforms(ImageTransformsConfig(enable=True))
    x = images(n=6)
    windows = x[:, None].repeat(1, 3, 1, 1, 1)
    # Contrast depends on all frames together, so equal frames must stay equal.
    changed = transforms(windows, seeded(4))
    assert torch.equal(changed[:, 0], changed[:, 2])
    torch.testing.assert_close(changed[:, 1], transforms(x, seeded(4)))


@pytest.mark.parametrize("random_order", [False, True])
def test_so_many_are_drawn_by_weight(random_order: bool) -> None:
    def mark(weight: float, channel_factor: float) -> ImageTransformConfig:
        bounds = [channel_factor, channel_factor]
        return ImageTransformConfig(
            weight=weight, type="ColorJitter", kwargs={"brightness": bounds}
        )

    tfs = {"half": mark(1.0, 0.5), "third": mark(3.0, 1 / 3), "never": mark(0.0, 0.0)}
    config = ImageTransformsConfig(
        enable=True, max_num_transforms=1, random_order=random_order, tfs=tfs
    )
    changed = ImageTransforms(config)(torch.ones(2000, 3, 1, 1), seeded(0))[:, 0, 0, 0]
    halves, thirds = (changed == 0.5).float().mean(), (changed < 0.4).float().mean()
    assert halves + thirds == 1
    assert halves == pytest.approx(0.25, abs=0.03)


def test_the_input_is_left_alone_and_disabled_returns_it() -> None:
    x = images()
    before = x.clone()
    one("ColorJitter", brightness=[0.1, 0.2])(x)
    assert torch.equal(x, before)
    assert ImageTransforms(ImageTransformsConfig())(x) is x


def test_transforms_travel_to_worker_processes() -> None:
    transforms = ImageTransforms(ImageTransformsConfig(enable=True))
    x = images()
    copy = pickle.loads(pickle.dumps(transforms))
    assert torch.equal(copy(x, seeded(0)), transforms(x, seeded(0)))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"brightness": [1.2, 0.8]}, r"brightness is \[1\.2, 0\.8\]; expected \[low, high\]"),
        ({"hue": [0.0, 0.7]}, r"hue \[0\.0, 0\.7\] is beyond 0\.5 turns"),
        ({"brightness": [0, 1], "hue": [0, 0]}, "must hold exactly one of brightness"),
    ],
)
def test_malformed_ranges(kwargs: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        one("ColorJitter", **kwargs)


def test_malformed_affine() -> None:
    with pytest.raises(ConfigError, match=r"translate is \[2, 0\]; expected two shares"):
        one("RandomAffine", translate=[2, 0])
    with pytest.raises(ConfigError, match="fill is 'mirror'; expected black or edge"):
        one("RandomAffine", fill="mirror")
