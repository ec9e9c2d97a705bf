# SPDX-License-Identifier: Apache-2.0
"""Where everything stands in a batch of prompts that ask for a chunk.

Worked out on the host, once per prompt: during an episode the instruction and the size of the
images stay as they are, and only pixels and state change. What runs per chunk then asks the device
nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vlakit.errors import ProcessingError
from vlakit.policies.attention_mask import has_left_padding
from vlakit.policies.backbones.qwen2_5_vl_positions import multimodal_positions
from vlakit.policies.backbones.qwen2_5_vl_vision import Grid

_MOST_REMEMBERED = 64


@dataclass(frozen=True)
class Layout:
    """The tokens up to the last action, on the device, and where they are."""

    ids: Tensor
    """(batch, first)"""
    is_real: Tensor | None
    """(batch, first + horizon) bool; None where all are."""
    positions: Tensor
    """(3, batch, first + horizon)"""
    image_rows: Tensor
    """(image tokens,) where they stand in the flattened ids."""
    state_columns: Tensor
    """(batch, 1)"""
    grids: tuple[Grid, ...]
    """Of every image, in patches."""
    first: int
    """Column of the first action."""


@dataclass(frozen=True)
class TokenIds:
    """Ids of the tokens that stand for something else."""

    image: int
    state: int
    action: int


class Layouts:
    """Layouts by prompt, the least recently used forgotten first."""

    def __init__(self, horizon: int, merge: int) -> None:
        """Start empty.

        Args:
            horizon: actions of a chunk.
            merge: patches along each side of an image token.
        """
        self._horizon, self._merge = horizon, merge
        self._known: OrderedDict[Hashable, Layout] = OrderedDict()

    def get(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        image_grid_thw: Tensor,
        tokens: TokenIds,
        *,
        multiple: int = 1,
    ) -> Layout:
        """Return the layout of a batch; three transfers to the host.

        Args:
            input_ids: (batch, length), padded on the left.
            attention_mask: (batch, length), nonzero at real tokens.
            image_grid_thw: (images, 3) frames, patch rows and patch columns.
            tokens: which ids mean what.
            multiple: pad further, until this divides `first`, and always give a mask: few shapes
                then occur.

        Raises:
            ProcessingError: the tokens are not those of a prompt for this policy.
        """
        device = input_ids.device
        ids, mask = input_ids.cpu(), attention_mask.cpu()
        grids = tuple((r, c) for t, r, c in image_grid_thw.tolist() for _ in range(t))
        content = (ids.numpy().tobytes(), mask.numpy().tobytes(), tuple(ids.shape))
        key = (*content, grids, tokens, multiple, device)
        if key not in self._known:
            while len(self._known) >= _MOST_REMEMBERED:
                self._known.popitem(last=False)
            self._known[key] = self._work_out(ids, mask, grids, tokens, multiple, device)
        self._known.move_to_end(key)
        return self._known[key]

    def _work_out(
        self,
        ids: Tensor,
        mask: Tensor,
        grids: tuple[Grid, ...],
        tokens: TokenIds,
        multiple: int,
        device: torch.device,
    ) -> Layout:
        first = _first_action(ids == tokens.action, self._horizon, tokens.action)
        added = -first % multiple
        ids, mask = F.pad(ids, (added, 0)), F.pad(mask, (added, 0))
        first += added
        merged = [(rows // self._merge, columns // self._merge) for rows, columns in grids]
        is_image = ids == tokens.image
        check_images(is_image, sum(rows * columns for rows, columns in merged))
        ids, is_image = ids[:, :first], is_image[:, :first]
        end = first + self._horizon
        needs_mask = multiple > 1 or has_left_padding(mask[:, :end])
        # Layouts outlive the call that made them, and training could meet them.
        with torch.inference_mode(False):
            positions = multimodal_positions(
                F.pad(is_image, (0, self._horizon)), mask[:, :end], merged
            )
            return Layout(
                ids=ids.to(device),
                is_real=mask[:, :end].bool().to(device) if needs_mask else None,
                positions=positions.to(device),
                image_rows=is_image.flatten().nonzero().squeeze(1).to(device),
                state_columns=state_columns(ids == tokens.state, tokens.state).to(device),
                grids=grids,
                first=first,
            )


def _first_action(is_action: Tensor, horizon: int, token: int) -> int:
    """Return the column of the first action token, the same in all rows."""
    firsts = is_action.int().argmax(dim=1)
    first = int(firsts[0])
    counts = sorted(set(is_action.sum(dim=1).tolist()))
    if counts != [horizon]:
        raise action_error(counts, token, horizon)
    if not bool((firsts == first).all()):
        raise ProcessingError(
            f"action tokens start in columns {sorted(set(firsts.tolist()))}; expected one column "
            "for all rows. Pad inference batches on the left: call the preprocessor without an "
            "action."
        )
    if not bool(is_action[:, first : first + horizon].all()):
        raise action_error(counts, token, horizon)
    return first


def action_error(counts: list[int], token: int, horizon: int) -> ProcessingError:
    """Return the error for rows whose action tokens are not one chunk."""
    return ProcessingError(
        f"the batch has {counts} action tokens (id {token}) per row; expected {horizon} in one "
        "piece, the policy's chunk_size. Use the preprocessor of this checkpoint."
    )


def check_images(is_image: Tensor, expected: int) -> None:
    """Raise ProcessingError unless the text has as many image tokens as its images make."""
    if (found := int(is_image.sum())) != expected:
        raise ProcessingError(
            f"the batch has {found} image tokens, but its images make {expected}. Use the "
            "preprocessor of this checkpoint, and do not cut its text."
        )


def state_columns(is_state: Tensor, token: int) -> Tensor:
    """Return the column of each row's state token, (batch, 1), of which there must be one."""
    if not bool((is_state.sum(dim=1) == 1).all()):
        raise ProcessingError(
            f"some row has not exactly one state token (id {token}). Use the preprocessor of this "
            "checkpoint."
        )
    return is_state.int().argmax(dim=1, keepdim=True)
