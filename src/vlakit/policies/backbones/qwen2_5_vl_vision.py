# SPDX-License-Identifier: Apache-2.0
"""Vision tower of Qwen2.5-VL: patches in, one embedding per 2x2 merged patches out.

Patches of one image arrive as the processor lays them: by rows of merged squares, and inside a
square row by row. The tower reorders the squares so that every attention window is contiguous and
windows of one size stand together; then windowed attention is a reshape, without any mask. All
images of one grid shape are one batch. A `GridPlan` holds what this needs, once per grid shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlakit.policies.backbones.attention import AttentionKind, attend
from vlakit.policies.backbones.block_execution import Recompute, run_block
from vlakit.policies.backbones.layers import GatedMLP, RMSNorm, inverse_frequencies, rotate
from vlakit.policies.backbones.qwen2_5_vl_config import VisionSizes

ROPE_THETA = 10000.0

_MOST_ARRANGEMENTS = 64
"""Batches of images that are remembered; each takes 8 bytes per token."""

Grid = tuple[int, int]
"""Patch rows and patch columns of one image."""


@dataclass(frozen=True)
class WindowRun:
    """Windows of equal size that stand together in the order of a plan."""

    start: int
    """First patch."""
    count: int
    """Number of windows."""
    size: int
    """Patches per window."""

    @property
    def end(self) -> int:
        return self.start + self.count * self.size


@dataclass(frozen=True)
class GridPlan:
    """How images of one grid shape go through the tower."""

    order: Tensor
    """(squares,) position in the input of each merged square, window by window."""
    windows: tuple[WindowRun, ...]
    """The windows of one image, in patches."""
    whole: tuple[WindowRun, ...]
    """The same patches as one single window."""
    cos: Tensor
    """(patches, 1, head_dim) float32, in the plan's order."""
    sin: Tensor


@dataclass(frozen=True)
class ImageGroup:
    """Images of one grid shape, next to each other in the tower's order."""

    plan: GridPlan
    num_images: int
    start: int
    """First patch of the group among all patches."""

    @property
    def patches(self) -> int:
        return self.plan.cos.shape[0]

    @property
    def end(self) -> int:
        return self.start + self.num_images * self.patches


@dataclass(frozen=True)
class Arrangement:
    """How the images of a batch go through the tower together."""

    groups: list[ImageGroup]
    order: Tensor
    """(squares,) position in the input of each merged square."""
    inverse: Tensor
    """(squares,) the way back."""


def plan_grid(grid: Grid, sizes: VisionSizes, device: torch.device) -> GridPlan:
    """Work out the window order, the windows and the rotary angles for one grid shape."""
    rows, columns = (side // sizes.spatial_merge_size for side in grid)
    squares = torch.arange(rows * columns).view(rows, columns)
    side = sizes.window_side
    windows = [
        squares[top : top + side, left : left + side].flatten()
        for top in range(0, rows, side)
        for left in range(0, columns, side)
    ]
    windows.sort(key=len, reverse=True)
    order = torch.cat(windows)
    angles = _rotary_angles(grid, sizes).view(-1, sizes.merge_area, sizes.head_dim // 2)
    angles = angles[order].flatten(0, 1).repeat(1, 2)[:, None].to(device)
    return GridPlan(
        order=order.to(device),
        windows=_runs([len(window) * sizes.merge_area for window in windows]),
        whole=(WindowRun(0, 1, grid[0] * grid[1]),),
        cos=angles.cos(),
        sin=angles.sin(),
    )


def _rotary_angles(grid: Grid, sizes: VisionSizes) -> Tensor:
    """Return (patches, head_dim / 2) angles: half from the patch's row, half from its column."""
    rows, columns = grid
    merge = sizes.spatial_merge_size
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    squares = (rows // merge, merge, columns // merge, merge)
    position = torch.stack((row, column), dim=-1).view(*squares, 2).transpose(1, 2).reshape(-1, 2)
    frequencies = inverse_frequencies(sizes.head_dim // 4, ROPE_THETA, torch.device("cpu"))
    angles = position[:, :, None].float() * frequencies  # (patches, 2, head_dim / 4)
    return angles.flatten(1)


def _runs(lengths: list[int]) -> tuple[WindowRun, ...]:
    """Join neighbouring windows of one length."""
    runs: list[WindowRun] = []
    for length in lengths:
        if runs and runs[-1].size == length:
            last = runs.pop()
            runs.append(WindowRun(last.start, last.count + 1, length))
        else:
            runs.append(WindowRun(runs[-1].end if runs else 0, 1, length))
    return tuple(runs)


class VisionAttention(nn.Module):
    """Attention inside each window."""

    def __init__(self, sizes: VisionSizes, kind: AttentionKind) -> None:
        super().__init__()
        self.qkv = nn.Linear(sizes.hidden_size, 3 * sizes.hidden_size)
        self.proj = nn.Linear(sizes.hidden_size, sizes.hidden_size)
        self.num_heads, self.head_dim, self.kind = sizes.num_heads, sizes.head_dim, kind

    def forward(self, x: Tensor, groups: list[ImageGroup], windowed: bool) -> Tensor:
        """Return (patches, hidden_size) from the same, image by image in the order of `groups`."""
        qkv = self.qkv(x).split([group.end - group.start for group in groups])
        parts = [
            self._group(part, group, windowed) for part, group in zip(qkv, groups, strict=True)
        ]
        return self.proj(parts[0] if len(parts) == 1 else torch.cat(parts))

    def _group(self, qkv: Tensor, group: ImageGroup, windowed: bool) -> Tensor:
        plan = group.plan
        shape = (group.num_images, group.patches, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.view(shape).unbind(2)  # each (images, patches, heads, head_dim)
        # Angles are float32, and so is the turn, whatever the storage type.
        q, k = (rotate(x.float(), plan.cos, plan.sin).to(v.dtype) for x in (q, k))
        runs = plan.windows if windowed else plan.whole
        lengths = [run.count * run.size for run in runs]
        pieces = zip(*(x.split(lengths, dim=1) for x in (q, k, v)), strict=True)
        parts = [
            attend(*(self._split(x, run.size) for x in piece), kind=self.kind).view(
                group.num_images, run.count * run.size, -1
            )
            for piece, run in zip(pieces, runs, strict=True)
        ]
        return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)).flatten(0, 1)

    def _split(self, x: Tensor, size: int) -> Tensor:
        """(images, patches, heads, head_dim) -> (images * windows, heads, size, head_dim)."""
        return x.reshape(-1, size, self.num_heads, self.head_dim).transpose(1, 2)


class VisionBlock(nn.Module):
    """Pre-norm attention and gated MLP."""

    def __init__(self, sizes: VisionSizes, kind: AttentionKind, *, windowed: bool) -> None:
        super().__init__()
        self.norm1 = RMSNorm(sizes.hidden_size)
        self.norm2 = RMSNorm(sizes.hidden_size)
        self.attn = VisionAttention(sizes, kind)
        self.mlp = GatedMLP(sizes.hidden_size, sizes.intermediate_size, sizes.hidden_act, bias=True)
        self.windowed = windowed

    def forward(self, x: Tensor, groups: list[ImageGroup]) -> Tensor:
        """Return (patches, hidden_size) from the same."""
        x = x + self.attn(self.norm1(x), groups, self.windowed)
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """One linear map per patch. The weight keeps the shape of the convolution it stands for."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        kernel = (sizes.temporal_patch_size, sizes.patch_size, sizes.patch_size)
        self.proj = nn.Conv3d(sizes.in_channels, sizes.hidden_size, kernel, kernel, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        """Return (patches, hidden_size) from (patches, patch_dim)."""
        weight = self.proj.weight
        return F.linear(patches.to(weight.dtype), weight.flatten(1))


class PatchMerger(nn.Module):
    """Join a square of patches into one token of the language model."""

    def __init__(self, sizes: VisionSizes) -> None:
        super().__init__()
        joined = sizes.hidden_size * sizes.merge_area
        self.ln_q = RMSNorm(sizes.hidden_size)
        self.mlp = nn.Sequential(
            nn.Linear(joined, joined), nn.GELU(), nn.Linear(joined, sizes.out_hidden_size)
        )
        self.joined = joined

    def forward(self, x: Tensor) -> Tensor:
        """Return (patches / merge_area, out_hidden_size) from (patches, hidden_size)."""
        return self.mlp(self.ln_q(x).view(-1, self.joined))


class VisionTower(nn.Module):
    """The whole tower."""

    def __init__(self, sizes: VisionSizes, kind: AttentionKind) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(sizes)
        self.blocks = nn.ModuleList(
            VisionBlock(sizes, kind, windowed=index not in sizes.fullatt_block_indexes)
            for index in range(sizes.depth)
        )
        self.merger = PatchMerger(sizes)
        self.sizes = sizes
        self.recompute: Recompute = "none"
        self._plans: dict[tuple[Grid, torch.device], GridPlan] = {}
        self._arrangements: dict[tuple[tuple[Grid, ...], torch.device], Arrangement] = {}

    def forward(self, patches: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Embed images.

        Args:
            patches: (patches of all images, patch_dim), normalised pixels.
            grids: patch rows and patch columns per image, in the order of the patches. A clip of
                t frames counts as t images: frames never look at each other here.

        Returns:
            (patches / merge_area, out_hidden_size), in the order of the patches.
        """
        arrangement = self._arrange(tuple(grids), patches.device)
        x = self.patch_embed(patches).view(-1, self.sizes.merge_area, self.sizes.hidden_size)
        x = x[arrangement.order].flatten(0, 1)
        for block in self.blocks:
            x = run_block(block, x, arrangement.groups, recompute=self.recompute)
        return self.merger(x)[arrangement.inverse]

    def _arrange(self, grids: tuple[Grid, ...], device: torch.device) -> Arrangement:
        """Return how images go together; it holds for every batch of such images."""
        key = (grids, device)
        if key not in self._arrangements:
            if len(self._arrangements) >= _MOST_ARRANGEMENTS:
                self._arrangements.clear()
            # What is made while predicting is used in training too, where autograd keeps it.
            with torch.inference_mode(False):
                self._arrangements[key] = self._arranged(grids, device)
        return self._arrangements[key]

    def _arranged(self, grids: tuple[Grid, ...], device: torch.device) -> Arrangement:
        areas = [rows * columns // self.sizes.merge_area for rows, columns in grids]
        offsets = [0, *accumulate(areas)]
        groups, orders, start = [], [], 0
        for grid in dict.fromkeys(grids):
            plan = self._plan(grid, device)
            places = [offsets[image] for image, other in enumerate(grids) if other == grid]
            groups.append(ImageGroup(plan, len(places), start))
            start = groups[-1].end
            orders.append((torch.tensor(places, device=device)[:, None] + plan.order).flatten())
        order = orders[0] if len(orders) == 1 else torch.cat(orders)
        return Arrangement(groups, order, torch.argsort(order))

    def _plan(self, grid: Grid, device: torch.device) -> GridPlan:
        key = (grid, device)
        if key not in self._plans:
            self._plans[key] = plan_grid(grid, self.sizes, device)
        return self._plans[key]
