# SPDX-License-Identifier: Apache-2.0
"""The moving average of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vlakit.errors import CheckpointError
from vlakit.training.ema import MovingAverage


def _model(value: float, dtype: torch.dtype = torch.float32) -> nn.Linear:
    model = nn.Linear(2, 1).to(dtype)
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    return model


def test_average_moves_by_the_share_that_is_left() -> None:
    model = _model(1.0)
    ema = MovingAverage(model, decay=0.9)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 2.0)
    ema.update(model)
    torch.testing.assert_close(ema.average["weight"], torch.full((1, 2), 1.1))


def test_without_a_decay_the_average_warms_up() -> None:
    ema = MovingAverage(_model(1.0), decay=None)
    assert ema.current_decay() == 0
    ema.num_updates = 15
    assert ema.current_decay() == pytest.approx(1 - 16**-0.75)
    ema.num_updates = 10**9
    assert ema.current_decay() == 0.9999


def test_the_model_has_its_own_weights_back_afterwards() -> None:
    model = _model(1.0, torch.bfloat16)
    ema = MovingAverage(model, decay=0.5)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 3.0)
    ema.update(model)
    with ema.applied_to(model):
        assert model.weight.tolist() == [[2.0, 2.0]]
    assert model.weight.tolist() == [[3.0, 3.0]]
    assert model.weight.dtype == torch.bfloat16
    assert ema.average["weight"].dtype == torch.float32


def test_a_saved_average_goes_on_where_it_stopped() -> None:
    first = MovingAverage(_model(1.0), decay=None)
    first.update(_model(5.0))
    second = MovingAverage(_model(0.0), decay=None)
    second.load_state_dict(first.state_dict())
    assert second.num_updates == 1
    assert second.average["bias"].tolist() == first.average["bias"].tolist()


def test_an_average_of_other_weights_is_refused() -> None:
    with pytest.raises(CheckpointError, match="belongs to other weights"):
        MovingAverage(_model(1.0), None).load_state_dict({"num_updates": torch.tensor(0)})
