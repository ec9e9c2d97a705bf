# SPDX-License-Identifier: Apache-2.0
"""Camera images as SigLIP takes them: fitted into a square, in [-1, 1].

Source: openpi image_tools.py (resize_with_pad), LeRobot 0.6.1.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vlakit.errors import ProcessingError
from vlakit.processing.rename import check_cameras


def fit_images(images: Tensor, height: int, width: int) -> Tensor:
    """Return images scaled as a whole into a frame, centred on black, in [-1, 1].

    Args:
        images: (batch, 3, h, w), uint8 or float in [0, 1].
        height: of the frame.
        width: of the frame.

    Returns:
        (batch, 3, height, width) float32.

    Raises:
        ProcessingError: an image is so narrow that nothing of it is left.
    """
    images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    rows, columns = images.shape[-2:]
    if (rows, columns) != (height, width):
        ratio = max(columns / width, rows / height)
        size = (int(rows / ratio), int(columns / ratio))
        if 0 in size:
            raise ProcessingError(
                f"an image of {rows} x {columns} is too narrow: fitted into {height} x {width}, "
                "nothing of it is left. Crop it before."
            )
        # Parity: no antialiasing; only images that are resized are cut to [0, 1].
        images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        above, left = (height - size[0]) // 2, (width - size[1]) // 2
        below, right = height - size[0] - above, width - size[1] - left
        images = F.pad(images.clamp(0, 1), (left, right, above, below))
    return images * 2 - 1


def camera_images(
    batch: Mapping[str, Any],
    cameras: Sequence[str],
    *,
    may_be_missing: Collection[str],
    resolution: tuple[int, int],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return the images of all cameras and which of them exist.

    Parity: missing cameras come after the present ones, whatever their place in the settings.

    Args:
        batch: holds images (batch, 3, h, w) by name.
        cameras: names, in the policy's order.
        may_be_missing: those that a masked image may stand in for.
        resolution: height and width.
        device: where the images go.

    Returns:
        images (batch, cameras, 3, height, width) float32 in [-1, 1], and mask (batch, cameras)
        bool.

    Raises:
        ProcessingError: a camera is missing, all are, or an image has another shape.
    """
    check_cameras(batch, [name for name in cameras if name not in may_be_missing])
    present = [name for name in cameras if batch.get(name) is not None]
    if not present:
        raise ProcessingError(
            f"the batch has none of the policy's cameras {list(cameras)}; expected at least one. "
            "Pass --rename_map, or record them."
        )
    images = []
    for name in present:
        image = batch[name]
        if image.ndim != 4 or image.shape[1] != 3:
            raise ProcessingError(
                f"{name!r} has the shape {list(image.shape)}; expected (batch, 3, height, width)."
            )
        images.append(fit_images(image.to(device), *resolution))
    missing = len(cameras) - len(present)
    images += [torch.full_like(images[0], -1)] * missing
    exists = torch.tensor([True] * len(present) + [False] * missing, device=device)
    return torch.stack(images, dim=1), exists.expand(len(images[0]), -1)
