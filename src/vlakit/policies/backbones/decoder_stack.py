# SPDX-License-Identifier: Apache-2.0
"""What Gemma and Qwen's language model have in common: grouped queries, a cache, their layers."""

from __future__ import annotations

from functools import partial
from typing import Generic, Protocol, TypeVar

from torch import Tensor, nn

from vlakit.policies.backbones.block_execution import Recompute, run_block
from vlakit.policies.backbones.kv_cache import KVCache, LayerCache
from vlakit.policies.backbones.layers import GatedMLP, JoinedMaps, rotate
from vlakit.policies.backbones.quantized import is_quantized


class Positions(Protocol):
    """Where the tokens of a forward pass stand, and which of them ask."""

    @property
    def cos(self) -> Tensor:
        """Cosines of their positions, (batch, length, head_dim)."""
        ...

    @property
    def sin(self) -> Tensor: ...

    def asking(self, x: Tensor) -> Tensor:
        """Return the columns of x that ask, (batch, n, width) from (batch, length, width)."""
        ...


class StackSizes(Protocol):
    """Of a language model, as far as its cache goes."""

    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def num_key_value_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...


class GroupedProjections(nn.Module):
    """Maps into and out of an attention in which several query heads share a key head."""

    def __init__(
        self, width: int, *, num_heads: int, num_kv_heads: int, head_dim: int, bias: bool
    ) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width, num_heads * head_dim, bias=bias)
        self.k_proj = nn.Linear(width, num_kv_heads * head_dim, bias=bias)
        self.v_proj = nn.Linear(width, num_kv_heads * head_dim, bias=bias)
        self.o_proj = nn.Linear(num_heads * head_dim, width, bias=False)
        self.head_dim, self.num_kv_heads = head_dim, num_kv_heads
        self.joined: JoinedMaps | None = None

    def join_weights(self) -> None:
        """Let `project` compute queries, keys and values at once where it is allowed to."""
        self.joined = JoinedMaps(self.q_proj, self.k_proj, self.v_proj)

    def project(
        self, x: Tensor, places: Positions, cache: LayerCache | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotated queries of the tokens that ask, and keys and values of all.

        Args:
            x: (batch, length, width).
            places: of the tokens.
            cache: where the new keys and values go; all that it holds are then returned.

        Returns:
            (batch, heads, n, head_dim), and twice (batch, kv_heads, keys, head_dim).
        """
        if self.joined is not None and cache is not None and cache.uses_joined:
            q, k, v = self._all_at_once(self.joined, x, places)
        else:
            angles = (places.cos, places.sin)
            asking = (places.asking(part) for part in angles)
            q = self._turned(self.q_proj(places.asking(x)), *asking)
            k, v = self._turned(self.k_proj(x), *angles), self._heads(self.v_proj(x))
        return (q, k, v) if cache is None else (q, *cache.write(k, v))

    def _all_at_once(
        self, joined: JoinedMaps, x: Tensor, places: Positions
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values by one product and one turn."""
        heads = self._heads(joined(x))
        num_queries = heads.shape[1] - 2 * self.num_kv_heads
        turned = rotate(heads[:, : -self.num_kv_heads], places.cos[:, None], places.sin[:, None])
        q, k = turned.split([num_queries, self.num_kv_heads], dim=1)
        q = self._heads(places.asking(q.transpose(1, 2).flatten(2)))
        return q, k, heads[:, -self.num_kv_heads :]

    def _heads(self, x: Tensor) -> Tensor:
        """(batch, length, width) -> (batch, heads, length, head_dim)."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return rotate(self._heads(x), cos[:, None], sin[:, None])


SizesT = TypeVar("SizesT", bound=StackSizes)


class DecoderStack(nn.Module, Generic[SizesT]):
    """A language model's layers, one after another; each takes (x, places, its cache)."""

    layers: nn.ModuleList
    sizes: SizesT
    recompute: Recompute = "none"

    def run_layers(
        self, x: Tensor, places: Positions, last: Positions, cache: KVCache | None
    ) -> Tensor:
        """Return what the last layer gives.

        Args:
            x: (batch, length, width).
            places: for all layers but the last.
            last: for the last one, which may compute fewer tokens.
            cache: earlier keys and values, which the new ones join.
        """
        is_fixed = cache is not None and cache.uses_joined
        run = partial(run_block, recompute=self.recompute, is_fixed=is_fixed)
        for index, layer in enumerate(self.layers):
            is_last = index == len(self.layers) - 1
            own = None if cache is None else cache.layer(index)
            x = run(layer, x, last if is_last else places, own)
        return x

    def join_weights(self) -> None:
        """Lay out every layer's weights so that fewer products suffice, see `JoinedMaps`.

        Quantised weights stay as they are.
        """
        if any(is_quantized(weight) for weight in self.layers.parameters()):
            return
        for module in self.layers.modules():
            if isinstance(module, (GroupedProjections, GatedMLP)):
                module.join_weights()

    def new_cache(self, batch_size: int, length: int, *, uses_joined: bool = False) -> KVCache:
        """Return an empty cache in the storage type and on the device of the weights."""
        weight = self._stored()
        return KVCache(
            num_layers=self.sizes.num_hidden_layers,
            batch_size=batch_size,
            num_heads=self.sizes.num_key_value_heads,
            length=length,
            head_dim=self.sizes.head_dim,
            dtype=weight.dtype,
            device=weight.device,
            uses_joined=uses_joined,
        )

    def _stored(self) -> Tensor:
        """Return a weight that has the storage type: the embedding table."""
        return self.get_parameter("embed_tokens.weight")
