# SPDX-License-Identifier: Apache-2.0
"""All kernels compute the same attention."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from vlakit.policies.attention_mask import causal_padding_mask
from vlakit.policies.backbones.attention import (
    _per_query_head,
    as_bias,
    attend,
    takes_groups,
)
from vlakit.policies.backbones.segments import Segments, attend_segments


def _tensors(queries: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(2, 4, queries, 8), torch.randn(2, 2, keys, 8), torch.randn(2, 2, keys, 8)


def test_sdpa_equals_eager() -> None:
    q, k, v = _tensors(5, 5)
    mask = causal_padding_mask(torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]))
    for arguments in ({"causal": True}, {"mask": mask}, {}):
        ours, plain = (attend(q, k, v, kind=kind, **arguments) for kind in ("sdpa", "eager"))
        torch.testing.assert_close(ours, plain)
        assert ours.shape == (2, 5, 32)


def test_a_single_query_equals_eager_with_and_without_a_mask() -> None:
    q, k, v = _tensors(1, 6)
    per_row = torch.rand(2, 1, 1, 6) > 0.4
    per_row[..., 0] = True
    for mask in (None, per_row, per_row[:1]):
        ours, plain = (attend(q, k, v, kind=kind, mask=mask) for kind in ("sdpa", "eager"))
        torch.testing.assert_close(ours, plain)
        assert ours.shape == (2, 1, 32)


@pytest.mark.parametrize(
    ("device", "dtype", "has_mask", "expected"),
    [
        ("cuda", torch.bfloat16, False, True),  # flash attention
        ("cuda", torch.float16, False, True),
        ("cuda", torch.bfloat16, True, False),  # flash takes no mask, the others no groups
        ("cuda", torch.float32, False, False),  # flash takes no float32
        ("cuda", torch.float32, True, False),
        ("cpu", torch.float32, True, True),
        ("cpu", torch.bfloat16, False, True),
    ],
)
def test_heads_share_keys_where_a_fused_kernel_allows_it(
    device: str, dtype: torch.dtype, has_mask: bool, expected: bool
) -> None:
    assert takes_groups(device, dtype, has_mask=has_mask) is expected


@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("arguments", [{"causal": True}, {"mask": True}, {}])
def test_repeated_key_heads_give_what_shared_ones_give(
    kv_heads: int, arguments: dict[str, Any]
) -> None:
    q = torch.randn(2, 4, 5, 8, requires_grad=True)
    k, v = (torch.randn(2, kv_heads, 5, 8, requires_grad=True) for _ in range(2))
    if "mask" in arguments:
        is_real = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])
        arguments = {"mask": causal_padding_mask(is_real)}
    results = []
    for keys, values in ((k, v), (_per_query_head(k, 4), _per_query_head(v, 4))):
        out = attend(q, keys, values, kind="sdpa", **arguments)
        results.append((out, *torch.autograd.grad(out.square().sum(), (q, k, v))))
    for shared, repeated in zip(*results, strict=True):
        torch.testing.assert_close(repeated, shared)


def test_one_key_head_is_repeated_without_a_copy() -> None:
    k = torch.randn(2, 1, 5, 8)
    repeated = _per_query_head(k, 4)
    assert repeated.shape == (2, 4, 5, 8)
    assert repeated.untyped_storage().data_ptr() == k.untyped_storage().data_ptr()


def _reference(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """What flash_attn documents: (batch, positions, heads, size), causal from the last key back."""
    mask = None
    if causal:
        offset = k.shape[1] - q.shape[1]
        mask = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(offset)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    return out.transpose(1, 2)


@pytest.fixture
def fake_flash(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flash_attn with the published signatures, computed by torch."""
    module = ModuleType("flash_attn")

    def func(q: Tensor, k: Tensor, v: Tensor, dropout_p: float, causal: bool) -> Tensor:
        assert dropout_p == 0.0
        return _reference(q, k, v, causal)

    def varlen(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        dropout_p: float,
        causal: bool,
    ) -> Tensor:
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
        assert int(cu_seqlens_q.diff().max()) == max_seqlen_q
        assert int(cu_seqlens_k.diff().max()) == max_seqlen_k
        rows = zip(
            q.split(cu_seqlens_q.diff().tolist()),
            k.split(cu_seqlens_k.diff().tolist()),
            v.split(cu_seqlens_k.diff().tolist()),
            strict=True,
        )
        return torch.cat([_reference(*(x[None] for x in row), causal)[0] for row in rows])

    module.flash_attn_func = func  # type: ignore[attr-defined]
    module.flash_attn_varlen_func = varlen  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", module)


@pytest.mark.usefixtures("fake_flash")
@pytest.mark.parametrize("queries", [6, 2])
@pytest.mark.parametrize("padded", [True, False])
def test_flash_attention_equals_sdpa(queries: int, padded: bool) -> None:
    q, k, v = _tensors(queries, 6)
    is_real = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    if not padded:
        is_real = torch.ones_like(is_real)
    own = attend(
        q, k, v, kind="flash_attention_2", is_real=is_real if padded else None, causal=True
    )
    expected = attend(
        q, k, v, kind="sdpa", mask=causal_padding_mask(is_real, torch.arange(6 - queries, 6)[None])
    )
    asks = is_real[:, -queries:].bool()
    torch.testing.assert_close(own[asks], expected[asks])


@pytest.mark.usefixtures("fake_flash")
@pytest.mark.parametrize("queries", [(3, 5, 2), (1, 2, 2)])
def test_flash_attention_of_segments_equals_sdpa(queries: tuple[int, ...]) -> None:
    segments = Segments(keys=(3, 5, 2), queries=queries)
    q = torch.randn(1, 4, sum(queries), 8)
    k, v = torch.randn(1, 2, 10, 8), torch.randn(1, 2, 10, 8)
    ours, plain = (
        attend_segments(q, k, v, segments, kind=kind) for kind in ("flash_attention_2", "sdpa")
    )
    torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_few_queries_see_what_their_mask_shows(queries: int, dtype: torch.dtype) -> None:
    q, k, v = (part.to(dtype) for part in _tensors(queries, 9))
    mask = torch.rand(len(q), 1, queries, 9) > 0.4
    mask[..., 0] = True
    expected = attend(q, k, v, kind="sdpa", mask=mask)
    few = attend(q, k, v, kind="sdpa", mask=as_bias(mask))
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(few, expected, rtol=0, atol=tolerance)
    one_for_all = mask[:, :, :1]
    expected = attend(q, k, v, kind="sdpa", mask=one_for_all.expand_as(mask))
    few = attend(q, k, v, kind="sdpa", mask=as_bias(one_for_all))
    torch.testing.assert_close(few, expected, rtol=0, atol=tolerance)
