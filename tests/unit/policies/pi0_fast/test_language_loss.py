# SPDX-License-Identifier: Apache-2.0
"""Cross entropy in blocks: the value and the gradients of the plain way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vlakit.policies.pi0_fast.language_loss import head_cross_entropy

TOKENS, WIDTH, VOCABULARY = 11, 6, 17


def _tensors(scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    hidden = (scale * torch.randn(TOKENS, WIDTH)).requires_grad_()
    head = torch.randn(VOCABULARY, WIDTH).requires_grad_()
    return hidden, head, torch.randint(0, VOCABULARY, (TOKENS,)), torch.rand(TOKENS)


def _plain(hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return (F.cross_entropy(hidden @ head.T, targets, reduction="none") * weights).sum()


@pytest.mark.parametrize("rows", [1, 3, 4, 11, 100])
@pytest.mark.parametrize("factor", [1.0, -2.5])
@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_blocks_give_the_plain_loss_and_gradients(rows: int, factor: float, scale: float) -> None:
    hidden, head, targets, weights = _tensors(scale)
    expected = _plain(hidden, head, targets, weights)
    gradients = torch.autograd.grad(expected * factor, (hidden, head))
    loss = head_cross_entropy(hidden, head, targets, weights, logits_at_a_time=rows * VOCABULARY)
    torch.testing.assert_close(loss, expected)
    (loss * factor).backward()
    torch.testing.assert_close(hidden.grad, gradients[0])
    torch.testing.assert_close(head.grad, gradients[1])


def test_gradients_add_up_over_batches() -> None:
    hidden, head, targets, weights = _tensors()
    for _ in range(2):
        head_cross_entropy(hidden, head, targets, weights).backward()
    once = torch.autograd.grad(_plain(hidden, head, targets, weights), head)[0]
    torch.testing.assert_close(head.grad, 2 * once)


def test_a_frozen_head_or_frozen_layers_get_no_gradient() -> None:
    hidden, head, targets, weights = _tensors()
    head_cross_entropy(hidden.detach(), head, targets, weights).backward()
    head_cross_entropy(hidden, head.detach(), targets, weights).backward()
    expected = torch.autograd.grad(_plain(hidden, head, targets, weights), (hidden, head))
    torch.testing.assert_close(hidden.grad, expected[0])
    torch.testing.assert_close(head.grad, expected[1])


def test_without_gradients_the_value_is_the_same() -> None:
    hidden, head, targets, weights = _tensors()
    with torch.no_grad():
        loss = head_cross_entropy(hidden, head, targets, weights)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, _plain(hidden, head, targets, weights).detach())


def test_no_tokens_give_zero() -> None:
    hidden, head, targets, weights = _tensors()
    loss = head_cross_entropy(hidden[:0], head, targets[:0], weights[:0])
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None
    assert head.grad is not None
    assert not hidden.grad.any()
    assert not head.grad.any()


def test_a_second_backward_pass_is_an_error_not_a_wrong_gradient() -> None:
    hidden, head, targets, weights = _tensors()
    loss = head_cross_entropy(hidden, head, targets, weights)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        loss.backward()


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_logits_with_a_float32_softmax(autocast: bool) -> None:
    hidden, head, targets, weights = _tensors()
    expected = _plain(hidden, head, targets, weights)
    gradients = torch.autograd.grad(expected, (hidden, head))
    if autocast:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = head_cross_entropy(hidden, head, targets, weights)
    else:
        loss = head_cross_entropy(hidden, head.bfloat16(), targets, weights)
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-2, atol=0)
    assert not loss.equal(expected)  # the logits were rounded
    for own, exact in zip((hidden.grad, head.grad), gradients, strict=True):
        assert own is not None
        assert own.dtype == torch.float32
        assert (own - exact).abs().max() <= 2e-2 * exact.abs().max()
