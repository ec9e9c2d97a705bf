# SPDX-License-Identifier: Apache-2.0
"""Attention inside segments equals a dense block-diagonal causal mask."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vlakit.policies.backbones.attention import AttentionKind, attend
from vlakit.policies.backbones.segments import Segments, attend_segments

ROWS = [
    Segments(keys=(3, 5, 5, 2), queries=(3, 5, 5, 2)),
    Segments(keys=(3, 5, 5, 2), queries=(1, 2, 2, 2)),
    Segments(keys=(5, 5), queries=(2, 3)),
    Segments(keys=(4, 4), queries=(0, 2)),
    Segments(keys=(6,), queries=(6,)),
]


def _tensors(segments: Segments) -> tuple[Tensor, Tensor, Tensor]:
    keys = sum(segments.keys)
    return (
        torch.randn(1, 4, sum(segments.queries), 8),
        torch.randn(1, 2, keys, 8),
        torch.randn(1, 2, keys, 8),
    )


def _block_diagonal(segments: Segments) -> Tensor:
    blocks = [
        torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        for queries, keys in zip(segments.queries, segments.keys, strict=True)
    ]
    return torch.block_diag(*blocks).bool()


@pytest.mark.parametrize("segments", ROWS)
@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_each_segment_sees_itself_only(segments: Segments, kind: AttentionKind) -> None:
    q, k, v = _tensors(segments)
    own = attend_segments(q, k, v, segments, kind=kind)
    expected = attend(q, k, v, kind="eager", mask=_block_diagonal(segments))
    assert own.shape == (1, sum(segments.queries), 32)
    torch.testing.assert_close(own, expected)
