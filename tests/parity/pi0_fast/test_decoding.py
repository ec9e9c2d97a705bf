# SPDX-License-Identifier: Apache-2.0
"""Generated tokens against LeRobot 0.6.1: its own decoding, and ours on an over-fitted network."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.fixtures_root import FIXTURE_ROOT, cases
from tests.parity.pi0_fast.network_case import NetworkCase
from vlakit.policies.pi0_fast.action_tokens import ActionVocabulary
from vlakit.policies.pi0_fast.decoding import ConstrainedDecoder
from vlakit.policies.pi0_fast.generated import Generated
from vlakit.policies.pi0_fast.model import PI0FastModel
from vlakit.policies.pi0_fast.reference_decoding import decode_as_reference, read_codes
from vlakit.policies.pi0_fast.sequence import PI0FastInputs
from vlakit.processing import FastTokenizer
from vlakit.processing.text import TextTokenizer

RANDOM_CASES = [name for name in cases("pi0_fast") if name != "overfit"]
FAST = FastTokenizer.from_pretrained(FIXTURE_ROOT / "tokenizers" / "fast")


def vocabulary_of(case: NetworkCase) -> ActionVocabulary:
    return ActionVocabulary.from_tokenizer(
        TextTokenizer.from_pretrained(FIXTURE_ROOT / case.config.text_tokenizer_name),
        skip_tokens=case.config.fast_skip_tokens,
        fast_vocab_size=FAST.vocab_size,
    )


def as_reference(
    case: NetworkCase, model: PI0FastModel, inputs: PI0FastInputs, **changes: Any
) -> Tensor:
    settings: dict[str, Any] = {
        "max_steps": case.config.max_decoding_steps,
        "layout": "lerobot",
        "temperature": 0.0,
        "use_kv_cache": True,
    }
    return decode_as_reference(model, inputs, vocabulary_of(case), **settings | changes)


def constrained_decoder(case: NetworkCase, **changes: Any) -> ConstrainedDecoder:
    settings: dict[str, Any] = {
        "num_coefficients": case.config.chunk_size * case.config.action_dim,
        "max_steps": case.config.max_decoding_steps,
        "layout": "lerobot",
        "temperature": 0.0,
    }
    return ConstrainedDecoder(vocabulary_of(case), FAST.token_bytes, **settings | changes)


@pytest.mark.parametrize("way", ["kv", "nokv"])
@pytest.mark.parametrize("name", RANDOM_CASES)
def test_reference_decoding_gives_lerobot_s_tokens(name: str, way: str) -> None:
    case = NetworkCase(name)
    ids = as_reference(case, case.model().eval(), case.inputs("infer"), use_kv_cache=way == "kv")
    assert torch.equal(ids, case.tensors("infer_expected")[f"{way}.tokens"])


def test_reference_sampling_gives_lerobot_s_tokens() -> None:
    case = NetworkCase("one_cam_b1_fp32")
    sampling = case.note["infer"]["seeded_sampling"]
    model, inputs = case.model().eval(), case.inputs("infer")
    torch.manual_seed(sampling["seed"])
    ids = as_reference(case, model, inputs, temperature=sampling["temperature"])
    assert torch.equal(ids, case.tensors("infer_expected")["seeded_temp.tokens"])


@pytest.mark.parametrize("layout", ["lerobot", "openpi"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", RANDOM_CASES)
def test_networks_that_were_never_trained_spell_chunks(
    name: str, temperature: float, layout: str
) -> None:
    case = NetworkCase(name)
    decoder = constrained_decoder(case, temperature=temperature, layout=layout, max_steps=256)
    generated = decoder.decode(case.model().eval(), case.inputs("infer"))
    assert not generated.failures
    sizes = {"horizon": case.config.chunk_size, "action_dim": case.config.action_dim}
    assert len(FAST.decode(generated.codes, **sizes)) == len(case.actions[0])


class Overfitted(NetworkCase):
    """The case whose network says what it was trained on."""

    def __init__(self) -> None:
        super().__init__("overfit")

    @cached_property
    def infer_inputs(self) -> PI0FastInputs:
        raw, batch = self.tensors("raw_batch"), self.tensors("infer_processed")
        cameras = [raw[f"observation.images.{name}"] for name in self.note["cameras"]]
        # As wide as the network's images, so fitting them in is padding above and below.
        side = self.config.image_resolution[0]
        rows = [(side - image.shape[2]) // 2 for image in cameras]
        images = [F.pad(image, (0, 0, n, n)) for image, n in zip(cameras, rows, strict=True)]
        return PI0FastInputs(
            images=torch.stack(images, dim=1) * 2 - 1,
            image_mask=torch.ones(len(cameras[0]), len(cameras), dtype=torch.bool),
            prompt_ids=batch["observation.language.tokens"],
            prompt_mask=batch["observation.language.attention_mask"],
        )

    def constrained(self, dtype: str, **changes: Any) -> Generated:
        decoder = constrained_decoder(self, **changes)
        return decoder.decode(self.model(dtype).eval(), self.infer_inputs)


@pytest.mark.parametrize("way", ["kv", "nokv"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_reference_decoding_of_an_overfitted_network(dtype: str, way: str) -> None:
    case = Overfitted()
    expected = case.tensors("infer_expected")
    ids = as_reference(case, case.model(dtype).eval(), case.infer_inputs, use_kv_cache=way == "kv")
    assert torch.equal(ids, expected[f"{dtype}.{way}.tokens"])
    generated = read_codes(ids, vocabulary_of(case), check_prefix=True)
    assert not generated.failures
    chunks = torch.from_numpy(FAST.decode(generated.codes, horizon=10, action_dim=4)).float()
    torch.testing.assert_close(chunks, expected[f"{dtype}.{way}.chunk"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_constrained_decoding_gives_lerobot_s_tokens_and_chunk(dtype: str) -> None:
    case = Overfitted()
    generated, expected = case.constrained(dtype), case.tensors("infer_expected")
    steps = case.note["infer"][f"{dtype}.kv"]["steps_until_bar"]
    plain = expected[f"{dtype}.kv.tokens"].tolist()
    assert generated.text_ids == [ids[: n + 1] for ids, n in zip(plain, steps, strict=True)]
    assert not generated.failures
    chunks = torch.from_numpy(FAST.decode(generated.codes, horizon=10, action_dim=4)).float()
    torch.testing.assert_close(chunks, expected[f"{dtype}.kv.chunk"], rtol=0, atol=1e-6)


def test_as_many_steps_as_the_longest_chunk_takes_are_enough() -> None:
    """The bound binds nowhere where plain decoding ends within it."""
    case = Overfitted()
    generated = case.constrained("float32")
    longest = max(len(codes) for codes in generated.codes)
    assert case.constrained("float32", max_steps=longest) == generated
    shorter = case.constrained("float32", max_steps=longest - 1)
    changed = [row for row in range(4) if shorter.codes[row] != generated.codes[row]]
    assert changed == [row for row in range(4) if len(generated.codes[row]) == longest]
    assert not shorter.failures
    FAST.decode(shorter.codes, horizon=10, action_dim=4)
