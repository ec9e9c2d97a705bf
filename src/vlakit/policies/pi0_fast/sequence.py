# SPDX-License-Identifier: Apache-2.0
"""What pi0-FAST reads, who stands where in its sequence, and who sees whom.

    <camera 1> <camera 2> ... <prompt, padded> <suffix: action tokens, padded>
     `---------------- prefix ---------------'

The prefix sees itself both ways; a suffix token sees the prefix and what is not later than itself.
Nobody sees padding, nor a camera that does not exist, and neither advances positions. So whatever
is hidden in every row is left out of the sequence: the rest computes what it would have.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vlakit.policies.attention_mask import prefix_mask
from vlakit.policies.backbones.gemma import Span, Wanted


@dataclass(frozen=True)
class PI0FastInputs:
    """What a policy is asked about."""

    images: Tensor
    """(batch, cameras, 3, side, side) float32 in [-1, 1]"""
    image_mask: Tensor
    """(batch, cameras) bool, False where a camera does not exist."""
    prompt_ids: Tensor
    """(batch, prompt) int64, padded on the right."""
    prompt_mask: Tensor
    """(batch, prompt) bool, True at real tokens."""


@dataclass(frozen=True)
class Prefix:
    """Embedded images and prompts."""

    embeddings: Tensor
    """(batch, length, width) in the storage type."""
    is_real: Tensor
    """(batch, length) bool"""
    is_full: bool
    """Whether all of them are real."""

    @property
    def length(self) -> int:
        return self.is_real.shape[1]


@dataclass(frozen=True)
class Kept:
    """What some row of a batch can see; the rest is left out."""

    cameras: list[int]
    """Indices of cameras."""
    prompt: int
    """Prompt columns."""
    is_full: bool
    """Whether every row sees all that is kept."""


def keep_visible(image_mask: Tensor, prompt_mask: Tensor, *, multiple: int = 1) -> Kept:
    """Find out what can be left out; one transfer to the host.

    Args:
        image_mask: (batch, cameras), True where a camera exists.
        prompt_mask: (batch, prompt), True at real tokens.
        multiple: keep prompts of a length that this divides, so that few lengths occur; above 1
            rows do not count as full.
    """
    joined = torch.cat((image_mask, prompt_mask), dim=1).cpu()
    images, prompt = joined[:, : image_mask.shape[1]], joined[:, image_mask.shape[1] :]
    cameras = images.any(0).nonzero().flatten().tolist()
    length = last_column(prompt)
    is_full = multiple == 1 and bool(images[:, cameras].all() & prompt[:, :length].all())
    return Kept(cameras, -(-length // multiple) * multiple, is_full)


def cut(inputs: PI0FastInputs, kept: Kept) -> PI0FastInputs:
    """Return the inputs without what can be left out, or with more padding where that is kept."""
    images, exists, width = inputs.images, inputs.image_mask, inputs.prompt_ids.shape[1]
    if len(kept.cameras) < images.shape[1]:
        images, exists = images[:, kept.cameras], exists[:, kept.cameras]
    missing = max(kept.prompt - width, 0)
    return PI0FastInputs(
        images=images,
        image_mask=exists,
        prompt_ids=F.pad(inputs.prompt_ids[:, : kept.prompt], (0, missing)),
        prompt_mask=F.pad(inputs.prompt_mask[:, : kept.prompt], (0, missing)),
    )


def last_column(mask: Tensor) -> int:
    """Return one past the last column that is True in some row of a mask on the host."""
    return int(mask.any(0).nonzero().max()) + 1 if bool(mask.any()) else 0


def last_real_column(is_real: Tensor) -> Tensor:
    """Return the column of each row's last real token, (batch, 1)."""
    columns = torch.arange(is_real.shape[1], device=is_real.device)
    return torch.where(is_real, columns, 0).amax(1, keepdim=True)


def token_positions(is_real: Tensor) -> Tensor:
    """Return positions that hidden tokens do not advance, (batch, length), from 0."""
    return is_real.long().cumsum(1) - 1


def prefix_spans(is_real: Tensor, prefix: int, *, prefix_is_full: bool) -> list[Span]:
    """Return what each token sees, prefix and suffix apart.

    Apart, a prefix without padding needs no mask, which is fast, and no prefix token is compared
    with the suffix.

    Args:
        is_real: (batch, length).
        prefix: tokens of the prefix; at least one.
        prefix_is_full: whether all of them are real.
    """
    length = is_real.shape[1]
    mask = None if prefix_is_full else is_real[:, None, None, :prefix]
    spans = [Span(prefix, prefix, mask)]
    if length > prefix:
        columns = torch.arange(prefix, length, device=is_real.device)[None]
        spans.append(Span(length, length, prefix_mask(is_real, prefix, columns)))
    return spans


def wanted_columns(is_real: Tensor, prefix: int, columns: Tensor) -> Wanted:
    """Ask for the output at some columns, (batch, n)."""
    return Wanted(columns, prefix_mask(is_real, prefix, columns))
