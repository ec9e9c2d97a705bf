# SPDX-License-Identifier: Apache-2.0
"""What holds with and without a GPU: own buffers, one recording a shape, none of old weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vlakit.policies.backbones.recorded import Recorded, Recordings


def test_inputs_are_copied_into_buffers_of_their_own() -> None:
    addresses = []

    def begin(x: Tensor) -> Tensor:
        addresses.append(x.data_ptr())
        return x * 2

    first, second = torch.ones(3), torch.full((3,), 5.0)
    recorded = Recorded(begin, [first])
    assert recorded.begin(first).tolist() == [2.0] * 3
    assert recorded.begin(second).tolist() == [10.0] * 3
    assert len(set(addresses)) == 1
    assert not {first.data_ptr(), second.data_ptr()} & set(addresses)


def test_advance_changes_the_state_of_the_last_begin() -> None:
    recorded: Recorded[Tensor] = Recorded(
        lambda x: x.clone(), [torch.zeros(2)], advance=lambda state: state.add_(1)
    )
    recorded.begin(torch.zeros(2))
    state = recorded.begin(torch.full((2,), 7.0))
    recorded.advance()
    recorded.advance()
    assert state.tolist() == [9.0, 9.0]


def test_nothing_is_kept_for_a_gradient() -> None:
    weight = nn.Parameter(torch.ones(2))
    recorded = Recorded(lambda x: x * weight, [torch.ones(2)])
    assert not recorded.begin(torch.ones(2)).requires_grad


class Made:
    """Counts how often a recording was made."""

    def __init__(self, module: nn.Linear, **arguments: int) -> None:
        self.count = self.prepared = 0
        self.module = module
        self.recordings: Recordings[Tensor] = Recordings(module, self._prepare, **arguments)

    def _prepare(self) -> None:
        self.prepared += 1

    def run(self, x: Tensor, key: str = "") -> Tensor:
        def make() -> Recorded[Tensor]:
            self.count += 1
            return Recorded(self.module, [x])

        return self.recordings.get(key, [x], make).begin(x)


def test_a_shape_and_a_key_are_recorded_once() -> None:
    made = Made(nn.Linear(3, 2))
    for rows in (1, 4, 1, 4, 1):
        x = torch.randn(rows, 3)
        torch.testing.assert_close(made.run(x), made.module(x))
    assert (made.count, made.prepared, len(made.recordings)) == (2, 1, 2)
    made.run(torch.randn(1, 3), key="other")
    made.run(torch.randn(1, 3, dtype=torch.float32), key="other")
    assert made.count == 3


def test_the_least_recently_used_recording_goes_first() -> None:
    made = Made(nn.Linear(3, 2), most=2)
    for rows in (1, 2, 1, 3, 1):
        made.run(torch.randn(rows, 3))
    assert (made.count, len(made.recordings)) == (3, 2)
    made.run(torch.randn(2, 3))
    assert made.count == 4


def test_weights_that_move_are_recorded_anew_and_those_that_change_are_seen() -> None:
    module = nn.Linear(3, 2)
    made, x = Made(module), torch.randn(1, 3)
    made.run(x)
    with torch.no_grad():
        module.weight.mul_(3)
    torch.testing.assert_close(made.run(x), module(x))
    assert (made.count, made.prepared) == (1, 1)
    module.weight.data = module.weight.data.clone() + 1
    torch.testing.assert_close(made.run(x), module(x))
    assert (made.count, made.prepared, len(made.recordings)) == (2, 2, 1)


def test_another_precision_is_another_recording() -> None:
    made, x = Made(nn.Linear(3, 2)), torch.randn(1, 3)
    assert made.run(x).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert made.run(x).dtype == torch.bfloat16
    assert made.count == 2


@pytest.mark.gpu
def test_a_graph_gives_what_its_function_gives() -> None:
    module = nn.Linear(3, 2, device="cuda")
    made = Made(module)
    for _ in range(3):
        x = torch.randn(4, 3, device="cuda")
        torch.testing.assert_close(made.run(x), module(x))
    assert made.count == 1
