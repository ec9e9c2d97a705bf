# SPDX-License-Identifier: Apache-2.0
"""A packed batch trains exactly like the batch it was made from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.unit.policies.eo1.tiny import tiny_batch, tiny_policy
from vlakit.policies.eo1.packing import plan_packing

RAGGED = (3, 9, 5, 3, 1)
EQUAL = (4, 4, 4)
OVER = torch.tensor([4, 2, 3, 1, 4])
"""Actions of each sample before the end of its episode."""
EXACT = 5e-6
"""float32: other shapes of matrices sum in another order."""
ROUNDED = 5e-2
"""bfloat16, whose own rounding is 4e-3 and enters every layer twice."""

Gradients = dict[str, Tensor | None]


def _batch(lengths: tuple[int, ...], *, ends: bool = True) -> dict[str, Any]:
    """Return samples with prompts of these lengths, some of which run past their episode."""
    batch = tiny_batch(lengths)
    if ends:
        batch["action_is_pad"] = torch.arange(4) >= OVER[: len(lengths), None]
    return batch


def _train(batch: dict[str, Any], *, packed: bool, **settings: Any) -> tuple[float, Gradients]:
    """Return loss and gradients of one step with weights and draws that are always the same."""
    torch.manual_seed(3)
    policy = tiny_policy(pack_sequences=packed, **settings).train()
    rows = len(batch["input_ids"])
    loss, _ = policy(batch, noise=torch.randn(rows, 4, 7), time=torch.rand(rows))
    loss.backward()
    return loss.item(), {name: value.grad for name, value in policy.named_parameters()}


def _distance(ours: Gradients, plain: Gradients) -> float:
    """Return the largest distance of a gradient, relative to its norm."""
    assert ours.keys() == plain.keys()
    worst = 0.0
    for name, expected in plain.items():
        own = ours[name]
        if expected is None or own is None:
            assert expected is own, name
            continue
        scale = expected.float().norm().clamp(min=1e-6)
        worst = max(worst, float((own.float() - expected.float()).norm() / scale))
    return worst


@pytest.mark.parametrize("lengths", [RAGGED, EQUAL, (5,)], ids=["ragged", "equal", "one"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("supervised", [True, False])
def test_loss_and_gradients_are_those_of_the_unpacked_batch(
    lengths: tuple[int, ...], recompute: bool, supervised: bool
) -> None:
    settings = {"gradient_checkpointing": recompute, "supervise_padding_actions": supervised}
    loss, gradients = _train(_batch(lengths), packed=True, **settings)
    expected, plain = _train(_batch(lengths), packed=False, **settings)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert _distance(gradients, plain) < EXACT


@pytest.mark.parametrize(
    "settings",
    [
        {"attn_implementation": "eager"},
        {"supervise_padding_action_dims": False},
        {"supervise_padding_actions": False, "supervise_padding_action_dims": False},
        {"force_fp32_autocast": False},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_other_settings_of_training_hold(settings: dict[str, Any]) -> None:
    loss, gradients = _train(_batch(RAGGED), packed=True, **settings)
    expected, plain = _train(_batch(RAGGED), packed=False, **settings)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert _distance(gradients, plain) < EXACT


@pytest.mark.parametrize("supervised", [True, False])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("mixed", [True, False], ids=["autocast", "stored"])
def test_bfloat16_agrees_within_its_rounding(
    supervised: bool, recompute: bool, mixed: bool
) -> None:
    settings = {
        "gradient_checkpointing": recompute,
        "supervise_padding_actions": supervised,
        "dtype": "float32" if mixed else "bfloat16",
    }
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        loss, gradients = _train(_batch(RAGGED), packed=True, **settings)
        expected, plain = _train(_batch(RAGGED), packed=False, **settings)
    assert loss == pytest.approx(expected, rel=1e-3)
    assert _distance(gradients, plain) < ROUNDED


def test_a_sample_without_a_visible_action_leaves_the_others_as_they_are() -> None:
    batch = _batch(RAGGED)
    batch["action_is_pad"][2] = True
    settings = {"supervise_padding_actions": False}
    loss, gradients = _train(batch, packed=True, **settings)
    expected, plain = _train(batch, packed=False, **settings)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert _distance(gradients, plain) < EXACT


def _velocity(batch: dict[str, Any]) -> Tensor:
    """Return what the network predicts for every action of a packed batch."""
    torch.manual_seed(3)
    policy = tiny_policy(pack_sequences=True).train()
    seen: list[Tensor] = []
    policy.model.action_out_proj.register_forward_hook(lambda *args: seen.append(args[2]))
    rows = len(batch["input_ids"])
    policy(batch, noise=torch.randn(rows, 4, 7), time=torch.rand(rows))
    return seen[0]


@pytest.mark.parametrize("row", range(5))
def test_no_sample_sees_another(row: int) -> None:
    """Image, state, text and actions of one sample change; the others' velocities do not."""
    batch = _batch(RAGGED, ends=False)
    changed = {key: v.clone() if isinstance(v, Tensor) else v for key, v in batch.items()}
    changed["pixel_values"][16 * row : 16 * row + 16] += 1
    for name in ("observation.state", "action"):
        changed[name][row] += 1
    changed["input_ids"][row] = torch.where(
        batch["input_ids"][row] == 7, 8, batch["input_ids"][row]
    )
    before, after = _velocity(batch), _velocity(changed)
    others = torch.arange(5) != row
    assert before[others].equal(after[others])
    assert bool((before[row] != after[row]).any())


def test_the_row_has_no_token_that_nothing_depends_on() -> None:
    is_real = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 1, 1, 0, 1, 1]])
    columns = torch.tensor([[2, 3], [3, 4]])
    packing = plan_packing(is_real, columns)
    # Row 1 has two padded tokens, one of them an action; what follows the last action is left out.
    assert packing.tokens.tolist() == [7, 8, 10, 0, 1, 2, 3]
    assert packing.segments.keys == (3, 4)
    assert packing.segments.queries == (1, 2)
    assert packing.columns.tolist() == [[2, 5, 6]]
    hidden = torch.tensor([[[1.0], [2.0], [3.0]]])
    assert packing.unpack_actions(hidden).tolist() == [[[2.0], [3.0]], [[0.0], [1.0]]]
