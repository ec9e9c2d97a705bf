# SPDX-License-Identifier: Apache-2.0
"""Masks: causal, without padding, and never a row that sees nothing."""

from __future__ import annotations

import torch

from vlakit.policies.attention_mask import (
    causal_padding_mask,
    has_left_padding,
    prefix_mask,
)


def test_real_tokens_see_earlier_real_tokens_and_padding_only_itself() -> None:
    mask = causal_padding_mask(torch.tensor([[0, 1, 1]]))
    assert mask.tolist() == [[[[True, False, False], [False, True, False], [False, True, True]]]]


def test_chosen_queries_are_rows_of_the_whole_mask() -> None:
    is_real = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    rows = torch.tensor([[3, 4]])
    assert causal_padding_mask(is_real, rows).equal(causal_padding_mask(is_real)[:, :, 3:])


def test_rows_may_ask_from_different_positions() -> None:
    is_real = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    mask = causal_padding_mask(is_real, torch.tensor([[3], [1]]))
    assert mask[:, 0, 0].tolist() == [[True, True, True, True], [True, True, False, False]]


def test_left_padding_is_told_from_right_padding() -> None:
    assert has_left_padding(torch.tensor([[1, 1], [0, 1]]))
    assert not has_left_padding(torch.tensor([[1, 1], [1, 0]]))


def test_everybody_sees_the_prefix_and_what_is_not_later_unless_it_is_padding() -> None:
    is_real = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0]])
    mask = prefix_mask(is_real, 2, torch.arange(4)[None])
    whole = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    padded = [[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 1, 0], [1, 0, 1, 0]]
    assert mask[:, 0].int().tolist() == [whole, padded]


def test_rows_may_ask_a_prefix_mask_from_different_positions() -> None:
    is_real = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0]])
    whole = prefix_mask(is_real, 2, torch.arange(4)[None])
    chosen = prefix_mask(is_real, 2, torch.tensor([[3, 0], [1, 2]]))
    assert chosen[0, 0].equal(whole[0, 0, [3, 0]])
    assert chosen[1, 0].equal(whole[1, 0, [1, 2]])
