# SPDX-License-Identifier: Apache-2.0
"""Camera images to Qwen2.5-VL's patches: smart resize, CLIP normalisation, patching; all batched.

Works where the images are: nothing leaves a GPU. Numbers equal Hugging Face's image processor for
Qwen2-VL (`use_fast_processor=false`: Pillow's bicubic, bit for bit; `true`: torchvision's).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlakit.errors import CheckpointError, ProcessingError
from vlakit.files import read_json
from vlakit.processing.resize import resize_bicubic_exact, resize_bicubic_fast

_MAX_ASPECT_RATIO = 200
_VALUES_IN_CACHE = 1 << 20
"""Patch values that a processor handles in one go; more would leave its cache between steps."""

_MEND = "Fetch or save the backbone's folder again, with its processor files."


@dataclass(frozen=True, kw_only=True)
class PatchSettings:
    """How images become patches; the fields of Qwen's `preprocessor_config.json` that matter."""

    min_pixels: int = 64 * 28 * 28
    max_pixels: int = 128 * 28 * 28
    use_fast_processor: bool = False
    patch_size: int = 14
    merge_size: int = 2
    temporal_patch_size: int = 2
    mean: tuple[float, ...] = field(default=(0.48145466, 0.4578275, 0.40821073))
    std: tuple[float, ...] = field(default=(0.26862954, 0.26130258, 0.27577711))

    @property
    def factor(self) -> int:
        """Pixels along the side of one image token."""
        return self.patch_size * self.merge_size

    def updated_from(self, folder: Path) -> PatchSettings:
        """Return the settings with what the folder's image processor file says.

        That is `preprocessor_config.json`, or the part `image_processor` of the
        `processor_config.json` that newer releases of transformers write.

        Raises:
            CheckpointError: neither is there: patches made by guessed settings would fit nothing.
        """
        path, whole = folder / "preprocessor_config.json", folder / "processor_config.json"
        if not path.is_file() and whole.is_file():
            content = read_json(whole, CheckpointError, missing="", damaged=_MEND)
            if isinstance(content.get("image_processor"), dict):
                return replace(self, **_known_settings(content["image_processor"]))
        missing = f": it says how images become patches. {_MEND}"
        return replace(
            self,
            **_known_settings(read_json(path, CheckpointError, missing=missing, damaged=_MEND)),
        )


def _known_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    sizes = ("patch_size", "merge_size", "temporal_patch_size")
    known: dict[str, Any] = {name: content[name] for name in sizes if content.get(name)}
    for name in ("mean", "std"):
        if content.get(f"image_{name}"):
            known[name] = tuple(content[f"image_{name}"])
    return known


def smart_resize(
    height: int, width: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Return the size nearest to the image's whose sides are multiples of `factor`.

    The area is brought between the two bounds with the aspect ratio kept where multiples allow.
    Source: transformers `models/qwen2_vl/image_processing_qwen2_vl.py`, `smart_resize`.

    Raises:
        ProcessingError: one side is more than 200 times the other.
    """
    if max(height, width) > _MAX_ASPECT_RATIO * min(height, width):
        raise ProcessingError(
            f"an image of {height}x{width} pixels is too elongated: Qwen2.5-VL takes a ratio of at "
            f"most {_MAX_ASPECT_RATIO}. Crop it or check the order of its axes."
        )
    # Parity: `round` is to even, so 70 / 28 = 2.5 gives 2.
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    if new_height * new_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * grow / factor) * factor
        new_width = math.ceil(width * grow / factor) * factor
    return new_height, new_width


def to_uint8(images: Tensor) -> Tensor:
    """Return images as uint8; floats in [0, 1] are clamped, scaled, rounded half to even."""
    if images.dtype == torch.uint8:
        return images
    return images.clamp(0, 1).mul_(255).round_().to(torch.uint8)


def patch_grid(height: int, width: int, settings: PatchSettings) -> tuple[int, int]:
    """Return rows and columns of patches that an image of this size becomes."""
    new_height, new_width = smart_resize(
        height, width, settings.factor, settings.min_pixels, settings.max_pixels
    )
    return new_height // settings.patch_size, new_width // settings.patch_size


def qwen_patches(images: Tensor, settings: PatchSettings, out: Tensor | None = None) -> Tensor:
    """Return the normalised patches of images that share one size.

    Args:
        images: (n, 3, height, width), uint8 or float in [0, 1].
        settings: bounds, patch sizes, mean and std.
        out: where to write, (n, patches, features) float32; a new tensor by default.

    Returns:
        (n, patches, 3 * temporal * patch * patch) float32. Patches run over blocks of 2x2, so that
        the four that the vision tower merges are neighbours; the single frame fills both temporal
        slots.
    """
    grid = patch_grid(images.shape[-2], images.shape[-1], settings)
    num_images, channels = images.shape[:2]
    values = channels * settings.temporal_patch_size * settings.patch_size**2
    if out is None:
        shape = (num_images, grid[0] * grid[1], values)
        out = torch.empty(shape, device=images.device)
    step = num_images
    if images.device.type == "cpu":
        step = max(1, _VALUES_IN_CACHE // (grid[0] * grid[1] * values))
    for start in range(0, num_images, max(step, 1)):
        part = slice(start, start + step)
        _write_patches(images[part], grid, settings, out[part])
    return out


def _write_patches(
    images: Tensor, grid: tuple[int, int], settings: PatchSettings, out: Tensor
) -> None:
    (rows, columns), patch, merge = grid, settings.patch_size, settings.merge_size
    resize = resize_bicubic_fast if settings.use_fast_processor else resize_bicubic_exact
    resized = resize(to_uint8(images), rows * patch, columns * patch)  # (n, 3, height, width)
    num_images, channels = resized.shape[:2]
    blocks = resized.reshape(
        *(num_images, channels, rows // merge, merge, patch),
        *(columns // merge, merge, patch),
    ).permute(0, 2, 5, 3, 6, 1, 4, 7)  # (n, row block, column block, merge, merge, 3, patch, patch)
    pixels = blocks.reshape(num_images, rows * columns, channels, 1, patch * patch).float()
    mean, std = (
        torch.tensor(values, device=pixels.device)[:, None, None]
        for values in (settings.mean, settings.std)
    )
    pixels.div_(255).sub_(mean).div_(std)
    out.view(*pixels.shape[:3], settings.temporal_patch_size, -1).copy_(pixels)
