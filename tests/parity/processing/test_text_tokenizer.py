# SPDX-License-Identifier: Apache-2.0
"""Token ids and the rendered conversation against Hugging Face's tokenizer and chat template."""

from __future__ import annotations

import json

import pytest

from tests.fixtures_root import FIXTURE_ROOT
from vlakit.policies.eo1.conversation import EO1_TOKENS, ConversationTemplate
from vlakit.processing.text import PAD, TextTokenizer

RECORDED = json.loads((FIXTURE_ROOT / "tokenizers" / "text_cases.json").read_text())["qwen"]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.from_pretrained(
        FIXTURE_ROOT / "tokenizers" / "tiny-qwen2.5-vl", EO1_TOKENS
    )


@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: repr(case["text"]))
def test_ids_equal_hugging_face(tokenizer: TextTokenizer, case: dict) -> None:
    assert list(tokenizer.encode(case["text"])) == case["ids"]


def test_special_tokens_get_the_recorded_ids(tokenizer: TextTokenizer) -> None:
    expected = RECORDED["eo1_special_token_ids"]
    assert {token: tokenizer.token_id(token) for token in EO1_TOKENS} == expected
    assert tokenizer.token_id(PAD) == RECORDED["pad"]
    assert len(tokenizer) == RECORDED["len_after_adding_eo1_tokens"]


def test_the_conversation_is_rendered_as_the_chat_template_does() -> None:
    cameras = {
        f"observation.images.{name}": {"type": "VISUAL", "shape": [3, 8, 8]} for name in "ab"
    }
    rendered = ConversationTemplate(cameras, 3).render("open the drawer")
    assert rendered == RECORDED["chat_template_rendered"]
