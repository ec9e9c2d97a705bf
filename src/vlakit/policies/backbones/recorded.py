# SPDX-License-Identifier: Apache-2.0
"""Computation at fixed shapes: recorded once as CUDA graphs, replayed from then on.

A small network on a fast GPU waits for the host, which starts its kernels one by one. A graph
starts them all at once. It also repeats every address and every number of the host that it was
recorded with: so inputs lie in buffers of their own, whatever changes from call to call is a tensor
on the device, and nothing that was recorded outlives the weights it reads.

Without a GPU the same functions are called as they are.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from vlakit.policies.backbones.quantized import addresses

StateT = TypeVar("StateT")
Pool = Any
"""torch.cuda's handle of memory that graphs share."""

_WARM_UPS = 2
"""Runs before a recording: libraries allocate their workspaces, compilers compile."""


class Recorded(Generic[StateT]):
    """`begin(*inputs) -> state`, then `advance(state)` in place as often as wanted."""

    def __init__(
        self,
        begin: Callable[..., StateT],
        inputs: Sequence[Tensor],
        *,
        advance: Callable[[StateT], None] | None = None,
        pool: Pool | None = None,
    ) -> None:
        """Allocate the inputs' buffers and, on a GPU, record.

        Args:
            begin: makes the state; reads nothing that changes but its arguments.
            inputs: tensors as `begin` takes them; their shapes hold for all calls.
            advance: changes the state's tensors in place and replaces none.
            pool: memory of other recordings, none of which is replayed while this one is in use.
        """
        started = time.perf_counter()
        self._begin, self._advance = begin, advance
        self._inputs = [tensor.clone() for tensor in inputs]
        self._graphs: list[torch.cuda.CUDAGraph] = []
        self._state: StateT | None = None
        if inputs[0].is_cuda:
            self._record(pool)
        self.seconds = time.perf_counter() - started
        """Time that the recording took."""

    @torch.no_grad()
    def begin(self, *inputs: Tensor) -> StateT:
        """Return the state for these inputs; on a GPU it is the same object every time."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        if self._graphs:
            self._graphs[0].replay()
        else:
            self._state = self._begin(*self._inputs)
        assert self._state is not None
        return self._state

    @torch.no_grad()
    def advance(self) -> None:
        """Change the state in place."""
        if self._graphs:
            self._graphs[1].replay()
        else:
            assert self._state is not None
            assert self._advance is not None
            self._advance(self._state)

    @torch.no_grad()
    def _run_once(self) -> None:
        state = self._begin(*self._inputs)
        if self._advance is not None:
            self._advance(state)

    @torch.no_grad()
    def _record(self, pool: Pool | None) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._run_once()
        torch.cuda.current_stream().wait_stream(stream)
        first = torch.cuda.CUDAGraph()
        with torch.cuda.graph(first, pool=pool):
            self._state = self._begin(*self._inputs)
        self._graphs.append(first)
        if self._advance is None:
            return
        second = torch.cuda.CUDAGraph()
        with torch.cuda.graph(second, pool=first.pool()):
            self._advance(self._state)
        self._graphs.append(second)


class Recordings(Generic[StateT]):
    """Recordings by shape, the least recently used dropped first, all when the weights move."""

    def __init__(
        self, module: nn.Module, prepare: Callable[[], None] | None = None, most: int = 32
    ) -> None:
        """Start without recordings.

        Args:
            module: whose weights they read.
            prepare: called first, and again when the weights lie elsewhere; may move them itself.
            most: recordings kept; each has buffers and a cache of its own. Rollouts side by side
                need one for every number of rows that wait together, times a few lengths.
        """
        self._module, self._prepare, self._most = module, prepare, most
        self._recorded: OrderedDict[Hashable, Recorded[StateT]] = OrderedDict()
        self._addresses: tuple[int, ...] = ()
        self._pool: Pool | None = None
        self.seconds = 0.0
        """Time that recordings took so far."""

    def __len__(self) -> int:
        return len(self._recorded)

    def get(
        self,
        key: Hashable,
        inputs: Sequence[Tensor],
        make: Callable[[], Recorded[StateT]],
    ) -> Recorded[StateT]:
        """Return the recording for a key and the shapes of the inputs; makes it where absent."""
        self._check_weights()
        shapes = tuple((tuple(tensor.shape), tensor.dtype) for tensor in inputs)
        whole = (key, shapes, _numerics(inputs[0].device.type))
        if whole not in self._recorded:
            while len(self._recorded) >= self._most:
                self._recorded.popitem(last=False)
            self._recorded[whole] = make()
            self.seconds += self._recorded[whole].seconds
        self._recorded.move_to_end(whole)
        return self._recorded[whole]

    @property
    def pool(self) -> Pool | None:
        """Memory that all recordings share, as no two run at a time; None without a GPU."""
        if not self._recorded:
            self._pool = None  # memory that no graph uses is gone
        if self._pool is None and next(self._module.parameters()).is_cuda:
            self._pool = torch.cuda.graph_pool_handle()
        return self._pool

    def _check_weights(self) -> None:
        """Drop every recording when a weight lies elsewhere than before.

        Weights that change where they are, as in training, need nothing.
        """
        if self._where() == self._addresses:
            return
        self._recorded.clear()
        if self._prepare is not None:
            self._prepare()
        self._addresses = self._where()

    def _where(self) -> tuple[int, ...]:
        parameters = self._module.parameters()
        return tuple(place for parameter in parameters for place in addresses(parameter))


def _numerics(device: str) -> tuple[object, ...]:
    """Return what the arithmetic depends on besides the tensors."""
    is_mixed = torch.is_autocast_enabled(device)
    precision = torch.get_autocast_dtype(device) if is_mixed else None
    return is_mixed, precision, torch.get_float32_matmul_precision()
