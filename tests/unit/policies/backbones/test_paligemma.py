# SPDX-License-Identifier: Apache-2.0
"""Our PaliGemma against a small random one of transformers, part by part; names and weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

from vlakit.policies.attention_mask import causal_padding_mask
from vlakit.policies.backbones.gemma import Span, Wanted
from vlakit.policies.backbones.layers import take_columns
from vlakit.policies.backbones.paligemma import PaliGemma
from vlakit.policies.backbones.paligemma_config import PaliGemmaSizes

CONFIG: dict[str, Any] = {
    "text_config": {
        "model_type": "gemma",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 64,
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 4,
        "image_size": 16,
        "projection_dim": 32,
        "vision_use_head": False,
    },
    "projection_dim": 32,
}


@pytest.fixture(scope="module")
def pair() -> tuple[PaliGemma, PaliGemmaForConditionalGeneration]:
    """Return our network and transformers', with the same weights, scaled so that errors show."""
    torch.manual_seed(0)
    theirs = PaliGemmaForConditionalGeneration(PaliGemmaConfig(**CONFIG))
    for name, weight in theirs.named_parameters():
        torch.nn.init.normal_(weight, 0.2 if "norm" in name else 0.0, 0.2)
    ours = PaliGemma(PaliGemmaSizes.from_json(CONFIG))
    # Recent transformers leave out a level of SigLIP's names; files have it.
    ours.load_state_dict(
        {
            name.replace("vision_tower.", "vision_tower.vision_model."): weight
            for name, weight in theirs.state_dict().items()
        }
    )
    return ours.eval(), theirs.eval()


def test_images_equal_transformers(
    pair: tuple[PaliGemma, PaliGemmaForConditionalGeneration],
) -> None:
    ours, theirs = pair
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        expected = theirs.model.get_image_features(images).pooler_output
        torch.testing.assert_close(ours.embed_images(images), expected, atol=2e-5, rtol=2e-5)


def test_text_equals_transformers(
    pair: tuple[PaliGemma, PaliGemmaForConditionalGeneration],
) -> None:
    ours, theirs = pair
    ids, is_real = torch.randint(0, 64, (2, 9)), torch.ones(2, 9)
    is_real[0, 6:] = 0
    mask = causal_padding_mask(is_real)
    additive = torch.zeros(2, 1, 9, 9).masked_fill(~mask, -1e30)
    positions = is_real.long().cumsum(1) - 1
    with torch.no_grad():
        expected = theirs.model.language_model(
            input_ids=ids, attention_mask=additive, position_ids=positions
        ).last_hidden_state
        model = ours.language_model
        angles, spans = model.rotary(positions), [Span(9, 9, mask)]
        hidden = model(model.embed(ids), angles, spans)
        columns = torch.tensor([[2, 5], [8, 0]])
        chosen = model(
            model.embed(ids),
            angles,
            spans,
            wanted=Wanted(columns, causal_padding_mask(is_real, columns)),
        )
    torch.testing.assert_close(hidden, expected, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(chosen, take_columns(hidden, columns), atol=2e-5, rtol=2e-5)


def test_split_queries_give_the_same_as_one_span(
    pair: tuple[PaliGemma, PaliGemmaForConditionalGeneration],
) -> None:
    model = pair[0].language_model
    x, positions = torch.randn(1, 8, 32), torch.arange(8)[None]
    mask = torch.ones(8, 8, dtype=torch.bool).tril()
    mask[:5, :5] = True
    with torch.no_grad():
        whole = model(x, model.rotary(positions), [Span(8, 8, mask)])
        split = model(x, model.rotary(positions), [Span(5, 5), Span(8, 8, mask[5:])])
    torch.testing.assert_close(split, whole)


def _expected_tensors(width: int, inner: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and shapes of the large variants in LeRobot's order (run once, LeRobot 0.6.1)."""
    vision, vision_inner, vocabulary = 1152, 4304, 257_152

    def linear(name: str, out: int, size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (out, size)
        yield f"{name}.bias", (out,)

    def norm(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", (vision,)
        yield f"{name}.bias", (vision,)

    yield "lm_head.weight", (vocabulary, width)
    tower = "model.vision_tower.vision_model"
    yield f"{tower}.embeddings.patch_embedding.weight", (vision, 3, 14, 14)
    yield f"{tower}.embeddings.patch_embedding.bias", (vision,)
    yield f"{tower}.embeddings.position_embedding.weight", (256, vision)
    for layer in range(27):
        prefix = f"{tower}.encoder.layers.{layer}"
        yield from norm(f"{prefix}.layer_norm1")
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield from linear(f"{prefix}.self_attn.{name}", vision, vision)
        yield from norm(f"{prefix}.layer_norm2")
        yield from linear(f"{prefix}.mlp.fc1", vision_inner, vision)
        yield from linear(f"{prefix}.mlp.fc2", vision, vision_inner)
    yield from norm(f"{tower}.post_layernorm")
    yield from linear("model.multi_modal_projector.linear", width, vision)
    yield "model.language_model.embed_tokens.weight", (vocabulary, width)
    for layer in range(18):
        prefix = f"model.language_model.layers.{layer}"
        shapes = {
            "self_attn.q_proj": (2048, width),
            "self_attn.k_proj": (256, width),
            "self_attn.v_proj": (256, width),
            "self_attn.o_proj": (width, 2048),
            "mlp.gate_proj": (inner, width),
            "mlp.up_proj": (inner, width),
            "mlp.down_proj": (width, inner),
            "input_layernorm": (width,),
            "post_attention_layernorm": (width,),
        }
        for name, shape in shapes.items():
            yield f"{prefix}.{name}.weight", shape
    yield "model.language_model.norm.weight", (width,)


@pytest.mark.parametrize(
    ("variant", "width", "inner"), [("gemma_2b", 2048, 16_384), ("gemma_300m", 1024, 4096)]
)
def test_large_variants_have_lerobot_s_604_tensors(variant: str, width: int, inner: int) -> None:
    with torch.device("meta"):
        network = PaliGemma(PaliGemmaSizes.of_variant(variant))
    tensors = [(name, tuple(p.shape)) for name, p in network.named_parameters()]
    assert tensors == list(_expected_tensors(width, inner))
    assert len(tensors) == len(network.state_dict()) == 604


def test_bfloat16_leaves_vision_projector_and_norms_in_float32() -> None:
    network = PaliGemma(PaliGemmaSizes.from_json(CONFIG))
    network.store_in(torch.bfloat16)
    for name, parameter in network.named_parameters():
        is_wide = "vision" in name or "projector" in name or "norm" in name
        assert parameter.dtype == (torch.float32 if is_wide else torch.bfloat16), name


def test_embeddings_are_scaled_by_a_factor_in_the_storage_type() -> None:
    network = PaliGemma(PaliGemmaSizes.from_json(CONFIG))
    network.init_weights()
    network.store_in(torch.bfloat16)
    table = network.language_model.embed_tokens.weight
    factor = torch.tensor(32**0.5).bfloat16()
    embedded = network.language_model.embed(torch.arange(64))
    assert embedded.equal(table * factor)
    assert not embedded.equal(table * 32**0.5)


@pytest.mark.parametrize("width", [32, 256])
def test_fresh_weights_keep_activations_at_unit_size(width: int) -> None:
    changes = {"hidden_size": width, "head_dim": width // 4, "intermediate_size": 4 * width}
    config = {
        "text_config": CONFIG["text_config"] | changes,
        "vision_config": CONFIG["vision_config"] | {"projection_dim": width},
    }
    network = PaliGemma(PaliGemmaSizes.from_json(config))
    network.init_weights()
    model, ids = network.language_model, torch.arange(64)[None]
    with torch.no_grad():
        text = model.embed(ids)
        images = network.embed_images(torch.randn(4, 3, 16, 16))
        streams: list[Tensor] = []
        model.norm.register_forward_pre_hook(lambda _, given: streams.append(given[0]))
        hidden = model(text, model.rotary(torch.arange(64)[None]), [Span(64, 64)])
        logits = network.lm_head(hidden)
    for values in (text, images, streams[0]):
        assert 0.6 < values.std() < 1.8
    surprise = torch.nn.functional.cross_entropy(logits[0], ids[0])
    assert surprise.item() == pytest.approx(math.log(64), abs=0.05)
