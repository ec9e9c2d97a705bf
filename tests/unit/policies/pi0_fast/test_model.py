# SPDX-License-Identifier: Apache-2.0
"""What is left out changes nothing; rows do not feel one another; cached equals uncached."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.unit.policies.pi0_fast.small_network import (
    PATCHES,
    VOCABULARY,
    forward_tokens,
    only_row,
    small_actions,
    small_inputs,
    small_model,
)
from vlakit.errors import ConfigError
from vlakit.policies.backbones.block_execution import Recompute
from vlakit.policies.backbones.paligemma_config import PaliGemmaSizes
from vlakit.policies.pi0_fast.config import PI0FastConfig
from vlakit.policies.pi0_fast.model import PI0FastModel
from vlakit.policies.pi0_fast.sequence import Kept, PI0FastInputs, Prefix, keep_visible

MIXED = [[True, True, False], [False, True, False], [True, False, False]]
"""Cameras of three rows: the last exists nowhere."""
BOTH_LAYOUTS = pytest.mark.parametrize("layout", ["lerobot", "openpi"])


def _gradients(model: PI0FastModel, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _without_last(inputs: PI0FastInputs) -> PI0FastInputs:
    """Return inputs whose prompts lack their last column."""
    return dataclasses.replace(
        inputs, prompt_ids=inputs.prompt_ids[:, :-1], prompt_mask=inputs.prompt_mask[:, :-1]
    )


def _row_losses(
    model: PI0FastModel, inputs: PI0FastInputs, ids: Tensor, mask: Tensor, layout: str
) -> list[Tensor]:
    """Return each row's losses per token, computed alone, without padding or trimming."""
    losses = []
    for row in range(ids.shape[0]):
        alone, own = only_row(inputs, row), ids[row : row + 1, mask[row]]
        if layout == "lerobot":
            hidden, targets = forward_tokens(model, alone, own[:, :-1], causal_from=0), own[:, 1:]
        else:  # the last prompt token is one of those that see the prompt both ways
            fed = torch.cat((alone.prompt_ids[:, -1:], own[:, :-1]), dim=1)
            hidden, targets = forward_tokens(model, _without_last(alone), fed, causal_from=1), own
        losses.append(F.cross_entropy(model.logits(hidden)[0], targets[0], reduction="none"))
    return losses


@BOTH_LAYOUTS
def test_the_loss_is_that_of_rows_computed_alone(layout: str) -> None:
    model = small_model(token_layout=layout)
    inputs, (ids, mask) = small_inputs(MIXED, [3, 7, 5], 4), small_actions([6, 4, 9], 3)
    per_row = _row_losses(model, inputs, ids, mask, layout)
    mean = {
        "lerobot": torch.cat(per_row).mean(),
        "openpi": torch.stack([losses.mean() for losses in per_row]).mean(),
    }
    assert mean["lerobot"].item() != pytest.approx(mean["openpi"].item(), rel=1e-4)
    torch.testing.assert_close(model.loss(inputs, ids, mask), mean[layout])


@BOTH_LAYOUTS
def test_padding_and_absent_cameras_change_neither_loss_nor_gradients(layout: str) -> None:
    model = small_model(token_layout=layout).train()
    inputs, (ids, mask) = small_inputs(MIXED, [3, 7, 5], 0), small_actions([6, 4, 9], 0)
    absent = torch.rand(3, 2, 3, 8, 8)
    wider = PI0FastInputs(
        images=torch.cat((absent, inputs.images), dim=1),
        image_mask=F.pad(inputs.image_mask, (2, 0)),
        prompt_ids=F.pad(inputs.prompt_ids, (0, 5), value=7),
        prompt_mask=F.pad(inputs.prompt_mask, (0, 5)),
    )
    exact = model.loss(inputs, ids, mask)
    expected = _gradients(model, exact)
    longer = F.pad(ids, (0, 6), value=3), F.pad(mask, (0, 6))
    loss = model.loss(wider, *longer)
    gradients = _gradients(model, loss)
    assert loss.equal(exact)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert gradient.equal(expected[name]), name


def test_images_of_absent_cameras_are_never_encoded() -> None:
    model = small_model()
    counts: list[int] = []
    tower = model.paligemma.model.vision_tower
    tower.register_forward_pre_hook(lambda _, given: counts.append(len(given[0])))
    model.embed_prefix(small_inputs(MIXED, [3, 7, 5], 4))
    assert counts == [6]


def test_what_is_hidden_in_every_row_is_left_out() -> None:
    inputs = small_inputs(MIXED, [3, 7, 5], 4)
    assert keep_visible(inputs.image_mask, inputs.prompt_mask) == Kept([0, 1], 7, False)
    full = small_inputs([[True, False]] * 2, [4, 4], 2)
    assert keep_visible(full.image_mask, full.prompt_mask) == Kept([0], 4, True)
    prefix = small_model().embed_prefix(full)
    assert (prefix.length, prefix.is_full) == (PATCHES + 4, True)


def test_a_batch_without_any_camera_reads_its_prompts() -> None:
    model = small_model()
    inputs, (ids, mask) = small_inputs([[False], [False]], [3, 5], 0), small_actions([4, 4], 0)
    loss = model.loss(inputs, ids, mask)
    assert torch.isfinite(loss)
    assert not any("vision" in name for name in _gradients(model, loss))


@pytest.mark.parametrize("kind", ["layer", "selective"])
@pytest.mark.parametrize("lengths", [[6, 4, 9], [5, 5, 5]])
def test_recomputed_blocks_give_the_same_gradients(lengths: list[int], kind: Recompute) -> None:
    model = small_model().train()
    inputs, actions = small_inputs(MIXED, [3, 7, 5], 1), small_actions(lengths, 1)
    calls: list[int] = []
    model.paligemma.language_model.layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    expected = _gradients(model, model.loss(inputs, *actions))
    assert len(calls) == 1
    model.paligemma.set_recompute(kind)
    gradients = _gradients(model, model.loss(inputs, *actions))
    assert len(calls) == 3  # forward, and again in the backward pass
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name])


@pytest.mark.parametrize(("start", "causal_from"), [(1, 1), (1, 0), (4, 1), (4, 4), (0, 0)])
@pytest.mark.parametrize("cameras", [MIXED, [[True, True]] * 3])
@pytest.mark.parametrize("lengths", [[3, 7, 5], [4, 4, 4]])
def test_cached_equals_uncached_equals_rows_alone(
    start: int, causal_from: int, cameras: list[list[bool]], lengths: list[int]
) -> None:
    model = small_model().eval()
    inputs = small_inputs(cameras, lengths, 2)
    ids = torch.randint(0, VOCABULARY, (3, start + 6))
    decoding = model.prefill(inputs, ids[:, :start], causal_from=causal_from, max_new_tokens=6)
    cached = [decoding.hidden]
    for step in range(start, start + 6):
        model.step(decoding, ids[:, step])
        cached.append(decoding.hidden)
    uncached = forward_tokens(model, inputs, ids, causal_from=causal_from)
    alone = torch.cat(
        [
            forward_tokens(
                model, only_row(inputs, row), ids[row : row + 1], causal_from=causal_from
            )
            for row in range(3)
        ]
    )
    torch.testing.assert_close(uncached, alone)
    if start:
        torch.testing.assert_close(cached[0], uncached[:, start - 1])
    else:  # the last prompt token, wherever it stands in its row
        prompts = [only_row(inputs, row) for row in range(3)]
        shorter = [
            dataclasses.replace(
                p, prompt_ids=p.prompt_ids[:, :-1], prompt_mask=p.prompt_mask[:, 1:]
            )
            for p in prompts
        ]
        last = [
            forward_tokens(model, short, p.prompt_ids[:, -1:], causal_from=1)[:, -1]
            for short, p in zip(shorter, prompts, strict=True)
        ]
        torch.testing.assert_close(cached[0], torch.cat(last))
    torch.testing.assert_close(torch.stack(cached[1:], 1), uncached[:, start:])


def test_a_prefix_can_be_embedded_once() -> None:
    model = small_model().eval()
    inputs, ids = small_inputs(MIXED, [3, 7, 5], 2), torch.randint(0, VOCABULARY, (3, 2))
    prefix = model.embed_prefix(inputs)
    again = forward_tokens(model, prefix, ids, causal_from=1)
    assert again.equal(forward_tokens(model, inputs, ids, causal_from=1))
    decoding = model.prefill(prefix, ids, causal_from=1, max_new_tokens=0)
    torch.testing.assert_close(decoding.hidden, again[:, -1])


def test_the_cache_is_allocated_once_and_its_end_is_an_error() -> None:
    model = small_model().eval()
    inputs, ids = small_inputs([[True]], [3], 0), torch.tensor([[2]])
    decoding = model.prefill(inputs, ids, causal_from=1, max_new_tokens=3)
    slots = decoding.cache._slots
    assert slots.shape[4] == PATCHES + 3 + 1 + 3
    place = slots.data_ptr()
    for _ in range(3):
        model.step(decoding, ids[:, 0])
    assert decoding.cache._slots.data_ptr() == place
    with pytest.raises(ValueError, match="3 steps are used up"):
        model.step(decoding, ids[:, 0])


def test_decoding_reads_nothing_back_from_the_device() -> None:
    with torch.device("meta"):  # whose tensors have no values: reading one is an error
        model = small_model().eval()
        is_real = torch.ones(2, 9, dtype=torch.bool)
        prefix = Prefix(torch.zeros(2, 9, 24), is_real, is_full=False)
        ids = torch.zeros(2, 1, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="meta"):
        ids.max().item()
    decoding = model.prefill(prefix, ids, causal_from=1, max_new_tokens=2)
    for _ in range(2):
        model.step(decoding, model.logits(decoding.hidden).argmax(-1))
    assert decoding.hidden.shape == (2, 24)


def test_rows_of_the_head_are_those_of_all_logits() -> None:
    model, hidden = small_model(), torch.randn(3, 24)
    rows = torch.tensor([4, 49, 0, 4])
    torch.testing.assert_close(model.logits(hidden, rows), model.logits(hidden)[:, rows])


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_stays_near_float32(autocast: bool) -> None:
    model = small_model().train()
    inputs, actions = small_inputs(MIXED, [3, 7, 5], 4), small_actions([6, 4, 9], 3)
    expected = model.loss(inputs, *actions)
    model.paligemma.store_in(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = model.loss(inputs, *actions)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=2e-2)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_fresh_weights_learn_a_batch_by_heart() -> None:
    config = PI0FastConfig(device="cpu", paligemma_variant="tiny")
    changes = {"text_config": {"vocab_size": 64}, "vision_config": {"num_hidden_layers": 2}}
    sizes = PaliGemmaSizes.of_variant("tiny", changes)
    model = PI0FastModel(config, sizes, torch.float32)
    model.init_weights()
    inputs = PI0FastInputs(
        images=torch.rand(2, 1, 3, 84, 84) * 2 - 1,
        image_mask=torch.ones(2, 1, dtype=torch.bool),
        prompt_ids=torch.full((2, 3), 5),
        prompt_mask=torch.ones(2, 3, dtype=torch.bool),
    )
    ids = torch.tensor([[2, 9, 8, 7, 6], [2, 30, 31, 32, 33]])  # told apart by the images only
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(60):
        loss = model.loss(inputs, ids, ids > 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    decoding = model.prefill(inputs, ids[:, :1], causal_from=0, max_new_tokens=3)
    for column in range(1, 5):
        assert model.logits(decoding.hidden).argmax(-1).equal(ids[:, column])
        if column < 4:
            model.step(decoding, ids[:, column])


def test_a_resolution_that_is_not_the_vision_tower_s_is_refused() -> None:
    config = PI0FastConfig(device="cpu", image_resolution=(112, 112))
    with pytest.raises(ConfigError, match=r"--policy.image_resolution=\[112, 112\].*\[224, 224\]"):
        PI0FastModel(config, PaliGemmaSizes.of_variant("gemma_2b"), torch.float32)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns about itself
@pytest.mark.parametrize("mode", ["default", "max-autotune"])
@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_blocks_give_the_same(mode: str, recompute: bool) -> None:
    model = small_model(gradient_checkpointing=recompute).train()
    batches = [
        (small_inputs(MIXED, lengths, 1), *small_actions(actions, 1))
        for lengths, actions in [
            ([3, 7, 5], [6, 4, 9]),
            ([8, 2, 2], [3, 3, 3]),
            ([9, 9, 9], [5, 7, 2]),
        ]
    ]
    plain = [_gradients(model, model.loss(*batch)) for batch in batches]
    inputs, ids = batches[0][0], torch.randint(0, VOCABULARY, (3, 4))
    expected = forward_tokens(model, inputs, ids, causal_from=1)
    model.compile_blocks(mode)
    for batch, gradients in zip(batches, plain, strict=True):
        for name, gradient in _gradients(model, model.loss(*batch)).items():
            torch.testing.assert_close(gradient, gradients[name], atol=1e-5, rtol=1e-4)
    decoding = model.eval().prefill(inputs, ids[:, :1], causal_from=1, max_new_tokens=3)
    for column in range(1, 4):
        model.step(decoding, ids[:, column])
        torch.testing.assert_close(decoding.hidden, expected[:, column], atol=1e-5, rtol=1e-4)
