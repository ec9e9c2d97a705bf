# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch

from vlakit.policies.backbones.kv_cache import KVCache


def _cache(batch: int, length: int) -> KVCache:
    return KVCache(
        num_layers=2,
        batch_size=batch,
        num_heads=1,
        length=length,
        head_dim=2,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


def test_writes_from_start_return_all_up_to_the_last_one() -> None:
    cache, k = _cache(1, 6), torch.arange(6.0).view(1, 1, 3, 2)
    keys, values = cache.layer(0).write(k, -k)
    assert torch.equal(keys, k)
    assert torch.equal(values, -k)
    cache.start = 3
    keys, _ = cache.layer(0).write(k[:, :, :1] + 10, k[:, :, :1])
    assert torch.equal(keys[:, :, 3], k[:, :, 0] + 10)
    assert keys.shape[2] == 4
    assert not cache.layer(1).keys.any()


def test_slots_may_differ_from_row_to_row() -> None:
    cache, k = _cache(2, 5), torch.arange(8.0).view(2, 1, 2, 2) + 1
    cache.slots = torch.tensor([[0, 1], [3, 4]])
    keys, values = cache.layer(1).write(k, 2 * k)
    assert keys.shape[2] == values.shape[2] == 5
    assert torch.equal(keys[0, :, :2], k[0])
    assert torch.equal(keys[1, :, 3:], k[1])
    assert not keys[0, :, 2:].any()
    assert torch.equal(values, 2 * keys)
