# SPDX-License-Identifier: Apache-2.0
"""Random image changes for training, in torch, for a whole batch at once and on any device.

Each sample draws `max_num_transforms` of the configured transforms (without replacement, by weight)
and one strength for each. Meaning of a strength, as in torchvision:

- brightness b: pixel * b. contrast c: blend with the image's mean grey. saturation s: blend with
  its own grey picture. In a blend, 0 gives the other picture, 1 the image, more than 1 goes beyond.
- hue h: turn of the colour circle in turns, [-0.5, 0.5].
- sharpness s: blend with a smoothed picture (3x3, centre 5, others 1, divided by 13; borders kept).
- affine: rotation by an angle in degrees about the centre and a shift in whole pixels of at most
  the given share of (width, height); nearest pixel; what comes from outside is black, or the
  border's pixel with `"fill": "edge"`.

Differs from torchvision: arithmetic is float32 throughout and uint8 is rounded once at the end,
where torchvision cuts off after every transform. All frames of one sample get the same change.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vlakit.datasets.config import ImageTransformConfig, ImageTransformsConfig
from vlakit.errors import ConfigError

_GREY = (0.2989, 0.587, 0.114)

Apply = Callable[[Tensor, Tensor], Tensor]
"""Images (n, frames, channels, height, width) in [0, 1] on any device, strengths (n, 3)
in [0, 1) on the CPU -> images."""


class ImageTransforms:
    """Random changes of camera images.

    Args:
        config: what to draw from; see `ImageTransformsConfig`.

    Raises:
        ConfigError: a range is malformed.
    """

    def __init__(self, config: ImageTransformsConfig) -> None:
        self.config = config
        entries = [(name, entry) for name, entry in config.tfs.items() if entry.weight > 0]
        self._names = [name for name, _ in entries]
        self._weights = torch.tensor([entry.weight for _, entry in entries], dtype=torch.float64)
        self._apply = [_build(name, entry) for name, entry in entries]
        self._count = min(config.max_num_transforms, len(entries))

    def __reduce__(self) -> tuple[type[ImageTransforms], tuple[ImageTransformsConfig]]:
        return type(self), (self.config,)  # worker processes build their own

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return changed images, a new tensor of the same shape, dtype and device.

        Args:
            images: (n, channels, height, width) or (n, frames, channels, height, width); uint8, or
                float in [0, 1].
            generator: CPU generator, whose state decides all; None is torch's global one.
        """
        if not self.config.enable or not self._apply:
            return images
        # The same amount of randomness is used whatever is drawn.
        order = self._draw(len(images), generator)  # (n, count)
        # Both stay on the CPU, where what is decided by them costs no wait for a GPU.
        strengths = torch.rand(len(images), len(self._apply), 3, generator=generator)
        is_uint8 = images.dtype == torch.uint8
        work = images.to(torch.float32) / 255 if is_uint8 else images.clone()
        five_axes = work if work.ndim == 5 else work[:, None]
        if self.config.random_order:
            for place in range(self._count):
                self._apply_where(five_axes, order[:, place : place + 1], strengths)
        else:
            self._apply_where(five_axes, order, strengths)
        return work.mul_(255).round_().to(torch.uint8) if is_uint8 else work

    def _draw(self, num: int, generator: torch.Generator | None) -> Tensor:
        weights = self._weights.expand(num, -1)
        return torch.multinomial(weights, self._count, replacement=False, generator=generator)

    def _apply_where(self, images: Tensor, drawn: Tensor, strengths: Tensor) -> None:
        """Apply each transform in place to the samples that drew it."""
        for index, apply in enumerate(self._apply):
            chosen = (drawn == index).any(dim=1).nonzero().flatten()
            if len(chosen) == len(images):
                images.copy_(apply(images, strengths[:, index]))
            elif len(chosen):
                rows = chosen.to(images.device)
                images[rows] = apply(images[rows], strengths[chosen, index])


def _build(name: str, entry: ImageTransformConfig) -> Apply:
    if entry.type == "RandomAffine":
        return _affine(name, entry)
    if entry.type == "Identity":
        return lambda images, strengths: images
    if len(entry.kwargs) != 1:
        raise ConfigError(
            f"--dataset.image_transforms.tfs.{name}.kwargs={entry.kwargs} must hold exactly one of "
            "brightness, contrast, saturation, hue, sharpness; use one entry of tfs for each."
        )
    ((kind, bounds),) = entry.kwargs.items()
    floor, centre = (-0.5, 0.0) if kind == "hue" else (0.0, 1.0)
    low, high = _range(name, kind, bounds, centre, floor)
    if kind == "hue" and high > 0.5:
        raise ConfigError(
            f"--dataset.image_transforms.tfs.{name}: hue {bounds} is beyond 0.5 turns."
        )
    change = _CHANGES[kind]

    def apply(images: Tensor, strengths: Tensor) -> Tensor:
        factor = (low + (high - low) * strengths[:, 0]).view(-1, 1, 1, 1, 1)
        return change(images, factor.to(images.device))

    return apply


def _range(
    name: str, kind: str, bounds: object, centre: float, floor: float
) -> tuple[float, float]:
    """Return (low, high) from one number (centre +- it) or a pair."""
    if isinstance(bounds, (int, float)):
        bounds = [max(floor, centre - bounds), centre + bounds]
    is_pair = isinstance(bounds, (list, tuple)) and len(bounds) == 2
    if not is_pair or not floor <= bounds[0] <= bounds[1]:  # pyrefly: ignore
        raise ConfigError(
            f"--dataset.image_transforms.tfs.{name}: {kind} is {bounds}; expected [low, high] with "
            f"{floor} <= low <= high."
        )
    return float(bounds[0]), float(bounds[1])  # pyrefly: ignore


def _grey(images: Tensor) -> Tensor:
    """Return the grey picture, (n, frames, 1, height, width)."""
    if images.shape[2] == 1:
        return images
    red, green, blue = _GREY
    return red * images[:, :, 0:1] + green * images[:, :, 1:2] + blue * images[:, :, 2:3]


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp_(0, 1)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    mean = _grey(images).mean(dim=(2, 3, 4), keepdim=True)
    return torch.lerp(mean, images, factor).clamp_(0, 1)


def _saturation(images: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_grey(images).expand_as(images), images, factor).clamp_(0, 1)


def _sharpness(images: Tensor, factor: Tensor) -> Tensor:
    channels, height, width = images.shape[2:]
    if height < 3 or width < 3:
        return images
    kernel = images.new_ones(3, 3) / 13
    kernel[1, 1] = 5 / 13
    flat = images.flatten(0, 1)
    smooth = flat.clone()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(flat, kernel.expand(channels, 1, 3, 3), groups=channels)
    return torch.lerp(smooth.view_as(images), images, factor).clamp_(0, 1)


def _hue(images: Tensor, factor: Tensor) -> Tensor:
    if images.shape[2] == 1:
        return images
    high, low = images.amax(dim=2), images.amin(dim=2)  # (n, frames, height, width)
    spread = high - low
    red, green, blue = images.unbind(dim=2)
    safe = spread.clamp(min=1e-12)
    sector = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    turned = sector + 6 * factor[:, :, 0]  # in sixths of the circle
    # Channel k (5, 3, 1) of a hue: high - spread * clamp(min(p, 4 - p), 0, 1), p = (k + hue) mod 6.
    places = torch.stack([(k + turned) % 6 for k in (5, 3, 1)], dim=2)
    weight = torch.minimum(places, 4 - places).clamp_(0, 1)
    return high[:, :, None] - spread[:, :, None] * weight


_CHANGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "sharpness": _sharpness,
    "hue": _hue,
}


def _affine(name: str, entry: ImageTransformConfig) -> Apply:
    degrees = entry.kwargs.get("degrees", 0.0)
    low, high = _range(name, "degrees", degrees, centre=0.0, floor=-360.0)
    shares = entry.kwargs.get("translate") or [0.0, 0.0]
    if len(shares) != 2 or not all(0 <= share <= 1 for share in shares):
        raise ConfigError(
            f"--dataset.image_transforms.tfs.{name}: translate is {shares}; expected two shares in "
            "[0, 1] of width and height."
        )
    fill = entry.kwargs.get("fill", "black")
    if fill not in ("black", "edge", 0):
        raise ConfigError(
            f"--dataset.image_transforms.tfs.{name}: fill is {fill!r}; expected black or edge."
        )

    def apply(images: Tensor, strengths: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        angle = (low + (high - low) * strengths[:, 0]) * (math.pi / 180)
        limit = strengths.new_tensor([shares[0] * width, shares[1] * height])
        shift = ((2 * strengths[:, 1:] - 1) * limit).round()  # (n, 2): x, y in pixels
        if low == high == 0.0:
            return _shift(images, shift.long(), edge=fill == "edge")
        device = images.device
        return _rotate_and_shift(images, angle.to(device), shift.to(device), edge=fill == "edge")

    return apply


def _shift(images: Tensor, shift: Tensor, *, edge: bool) -> Tensor:
    """Move each sample by whole pixels; `shift` (n, 2) is x (right), y (down)."""
    reach_x, reach_y = shift.abs().amax(dim=0).tolist()
    if reach_x == 0 and reach_y == 0:
        return images
    height, width = images.shape[-2:]
    padded = F.pad(
        images.flatten(1, 2),
        (reach_x, reach_x, reach_y, reach_y),
        mode="replicate" if edge else "constant",
    )
    moved = torch.empty_like(images)
    for sample, (x, y) in enumerate(shift.tolist()):
        window = padded[sample, :, reach_y - y : reach_y - y + height, reach_x - x :]
        moved[sample] = window[..., :width].view(images.shape[1:])
    return moved


def _rotate_and_shift(images: Tensor, angle: Tensor, shift: Tensor, *, edge: bool) -> Tensor:
    """Rotate by `angle` (n,) rad, clockwise on the picture, then move by `shift` (n, 2)."""
    height, width = images.shape[-2:]
    cos, sin = torch.cos(angle), torch.sin(angle)
    x, y = shift[:, 0], shift[:, 1]
    # Source pixel of a target pixel, from the centre, scaled to grid_sample's [-1, 1].
    rows = torch.stack(
        [
            torch.stack([cos, sin * height / width, -(cos * x + sin * y) * 2 / width], dim=-1),
            torch.stack([-sin * width / height, cos, (sin * x - cos * y) * 2 / height], dim=-1),
        ],
        dim=1,
    )  # (n, 2, 3)
    flat = images.flatten(1, 2)
    grid = F.affine_grid(rows.to(flat.dtype), list(flat.shape), align_corners=False)
    moved = F.grid_sample(
        flat,
        grid,
        mode="nearest",
        padding_mode="border" if edge else "zeros",
        align_corners=False,
    )
    return moved.view_as(images)
