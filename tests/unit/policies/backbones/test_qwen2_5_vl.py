# SPDX-License-Identifier: Apache-2.0
"""Our Qwen2.5-VL against a tiny random one of transformers, tower by tower."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from vlakit.policies.backbones.layers import take_columns
from vlakit.policies.backbones.qwen2_5_vl import Qwen25VL
from vlakit.policies.backbones.qwen2_5_vl_config import Qwen25VLSizes
from vlakit.policies.backbones.qwen2_5_vl_positions import multimodal_positions

IMAGE_ID, TEXT_ID = 90, 5

ONE_WINDOW = [(1, 6, 6)]
LARGE = [(1, 18, 26)]  # 9 x 13 merged squares: windows of 4x4, 4x1, 1x4 and 1x1
SAME_SHAPE = [(1, 8, 12)] * 3
MIXED = [(1, 8, 12), (1, 18, 26), (1, 8, 12), (1, 4, 4)]


def _config(**changes: Any) -> dict[str, Any]:
    text = {
        "vocab_size": 96,
        "hidden_size": 64,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "mrope_section": [2, 3, 3],
            "rope_theta": 500_000.0,
            "rope_type": "default",
        },
        "tie_word_embeddings": True,
    }
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_heads": 2,
        "in_channels": 3,
        "fullatt_block_indexes": [1],
        "out_hidden_size": 64,
        "window_size": 112,
    }
    return {
        "text_config": text,
        "vision_config": vision,
        "image_token_id": IMAGE_ID,
        "video_token_id": 91,
        "vision_start_token_id": 92,
        "vision_end_token_id": 93,
        "tie_word_embeddings": True,
    } | changes


def _pair(
    kind: str = "sdpa", dtype: torch.dtype = torch.float32
) -> tuple[Qwen25VL, Qwen2_5_VLForConditionalGeneration]:
    """Return our network and transformers', with the same weights, scaled so that errors show."""
    config = _config()
    theirs = Qwen2_5_VLForConditionalGeneration._from_config(
        Qwen2_5_VLConfig(**config), attn_implementation=kind
    )
    for name, weight in theirs.named_parameters():
        torch.nn.init.normal_(weight, 1.0 if "norm" in name or "ln_q" in name else 0.0, 0.15)
    ours = Qwen25VL(Qwen25VLSizes.from_json(config), kind).to(dtype)  # type: ignore[arg-type]
    ours.load_state_dict(theirs.state_dict())
    ours.tie_weights()
    return ours.eval(), theirs.to(dtype).eval()


def _patches(grids: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor]:
    count = sum(frames * rows * columns for frames, rows, columns in grids)
    return torch.randn(count, 1176), torch.tensor(grids)


def _relative(actual: Tensor, expected: Tensor) -> float:
    return ((actual.float() - expected.float()).abs().max() / expected.float().abs().max()).item()


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
@pytest.mark.parametrize("grids", [ONE_WINDOW, LARGE, SAME_SHAPE, MIXED])
@torch.no_grad()
def test_vision_tower_equals_transformers(grids: list[tuple[int, int, int]], kind: str) -> None:
    ours, theirs = _pair(kind)
    patches, grid = _patches(grids)
    expected = theirs.model.get_image_features(patches, grid).pooler_output
    expected = torch.cat(list(expected))
    assert _relative(ours.embed_images(patches, grid), expected) < 3e-6


@torch.no_grad()
def test_bfloat16_vision_tower_equals_transformers() -> None:
    ours, theirs = _pair(dtype=torch.bfloat16)
    patches, grid = _patches(MIXED)
    expected = torch.cat(
        list(theirs.model.get_image_features(patches.bfloat16(), grid).pooler_output)
    )
    assert _relative(ours.embed_images(patches, grid), expected) < 3e-2


@torch.no_grad()
def test_a_clip_is_embedded_like_its_frames() -> None:
    ours, _ = _pair()
    patches, _ = _patches([(1, 8, 12)] * 2)
    as_clip = ours.embed_images(patches, torch.tensor([(2, 8, 12)]))
    assert torch.equal(as_clip, ours.embed_images(patches, torch.tensor([(1, 8, 12)] * 2)))


def test_image_order_does_not_matter() -> None:
    ours, _ = _pair()
    patches, grid = _patches(MIXED)
    parts = patches.split([96, 468, 96, 16])
    with torch.no_grad():
        together = ours.embed_images(patches, grid).split([24, 117, 24, 4])
        for part, row, embedded in zip(parts, grid, together, strict=True):
            assert _relative(ours.embed_images(part, row[None]), embedded) < 3e-6


def _sequence(
    grids: list[list[tuple[int, int]]], lengths: list[int], side: str
) -> dict[str, Tensor]:
    """Return rows of text with images in them, padded on one side."""
    rows = []
    for row_grids, length in zip(grids, lengths, strict=True):
        ids = [TEXT_ID] * 3
        for rows_, columns in row_grids:
            ids += [92, *([IMAGE_ID] * (rows_ * columns)), 93]
        rows.append(ids + [TEXT_ID + 1] * length)
    width = max(map(len, rows))
    pad = [[0] * (width - len(row)) for row in rows]
    padded = [p + r if side == "left" else r + p for r, p in zip(rows, pad, strict=True)]
    ids = torch.tensor(padded)
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


GRIDS_PER_ROW = [[(4, 6)], [(9, 13), (2, 2)], []]


@pytest.mark.parametrize("side", ["left", "right"])
def test_positions_equal_transformers(side: str) -> None:
    _, theirs = _pair()
    batch = _sequence(GRIDS_PER_ROW, [4, 1, 9], side)
    flat = [grid for row in GRIDS_PER_ROW for grid in row]
    is_image = batch["input_ids"] == IMAGE_ID
    expected, _ = theirs.model.get_rope_index(
        batch["input_ids"],
        mm_token_type_ids=is_image.int(),
        image_grid_thw=torch.tensor([(1, 2 * r, 2 * c) for r, c in flat]),
        attention_mask=batch["attention_mask"],
    )
    own = multimodal_positions(is_image, batch["attention_mask"], flat)
    real = batch["attention_mask"].bool()
    assert torch.equal(own[:, real], expected[:, real])
    assert not own[:, ~real].any()


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_language_model_equals_transformers(side: str, kind: str) -> None:
    ours, theirs = _pair(kind)
    batch = _sequence(GRIDS_PER_ROW, [4, 1, 9], side)
    real = batch["attention_mask"].bool()
    width = real.shape[1]
    embeddings = ours.model.language_model.embed_tokens(batch["input_ids"])
    flat = [grid for row in GRIDS_PER_ROW for grid in row]
    positions = multimodal_positions(batch["input_ids"] == IMAGE_ID, real, flat)
    expected = theirs.model.language_model(
        inputs_embeds=embeddings,
        position_ids=positions,
        attention_mask=batch["attention_mask"],
        use_cache=False,
    ).last_hidden_state
    own = ours.model.language_model(embeddings, positions, is_real=real)
    assert _relative(own[real], expected[real]) < 3e-6
    wanted = torch.tensor([[width - 2], [width - 1], [width // 2]])
    some = ours.model.language_model(embeddings, positions, is_real=real, wanted=wanted)
    assert _relative(some, take_columns(own, wanted)) < 3e-6
    if side == "right":
        plain = ours.model.language_model(embeddings, positions)
        assert _relative(plain[real], expected[real]) < 3e-6


def test_gradients_equal_transformers() -> None:
    ours, theirs = _pair()
    patches, grid = _patches(MIXED)
    target = torch.randn(24 + 117 + 24 + 4, 64)
    (ours.embed_images(patches, grid) * target).sum().backward()
    expected = torch.cat(list(theirs.model.get_image_features(patches, grid).pooler_output))
    (expected * target).sum().backward()
    for name, weight in theirs.model.visual.named_parameters():
        assert _relative(ours.model.visual.get_parameter(name).grad, weight.grad) < 1e-4, name


@torch.no_grad()
def test_cached_suffix_equals_full_pass() -> None:
    ours, _ = _pair()
    model = ours.model.language_model
    x, positions = torch.randn(2, 9, 64), torch.arange(9).expand(3, 2, 9)
    cache = model.new_cache(batch_size=2, length=9)
    model(x[:, :6], positions[:, :, :6], cache=cache)
    cache.start = 6
    for _ in range(2):  # the suffix may be run again in place
        own = model(x[:, 6:], positions[:, :, 6:], cache=cache)
    assert _relative(own, model(x, positions)[:, 6:]) < 1e-6


def test_recomputing_blocks_changes_nothing() -> None:
    ours, _ = _pair()
    patches, grid = _patches(LARGE)
    gradients = []
    for kind in ("none", "layer", "selective"):
        ours.train().set_recompute(kind)
        ours.zero_grad()
        ours.embed_images(patches, grid).square().sum().backward()
        gradients.append(ours.model.visual.patch_embed.proj.weight.grad.clone())
    assert all(gradient.equal(gradients[0]) for gradient in gradients)
