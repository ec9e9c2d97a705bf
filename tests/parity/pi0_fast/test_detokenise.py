# SPDX-License-Identifier: Apache-2.0
"""Valid, cut and malformed tokens: LeRobot's result in its own way, a reason in ours."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.fixtures_root import FIXTURE_ROOT
from vlakit.errors import ActionDecodeError
from vlakit.policies.pi0_fast.action_tokens import ActionVocabulary
from vlakit.processing import FastTokenizer
from vlakit.processing.text import TextTokenizer

FOLDER = FIXTURE_ROOT / "pi0_fast" / "overfit"
RECORDED: dict[str, Any] = json.loads((FOLDER / "detok.json").read_text(encoding="utf-8"))
EXPECTED = load_file(FOLDER / "detok_expected.safetensors")
FAST = FastTokenizer.from_pretrained(FIXTURE_ROOT / "tokenizers" / "fast")
VOCABULARY = ActionVocabulary.from_tokenizer(
    TextTokenizer.from_pretrained(FIXTURE_ROOT / "tokenizers" / "tiny-paligemma"),
    skip_tokens=RECORDED["fast_skip_tokens"],
    fast_vocab_size=RECORDED["bpe_vocab"],
)
WHOLE = {"valid", "valid_no_eos_zero_fill"}
"""Names of chunks of 10 x 4 that nothing is wrong with."""
WHOLE_WITHOUT_PREFIX = {"no_prefix"}


def name_of(case: dict[str, Any]) -> str:
    checked = int(case["validate_action_token_prefix"])
    return f"{case['name']}.{checked}.{case['action_horizon']}"


@pytest.mark.parametrize("case", RECORDED["detokenize_actions"], ids=name_of)
def test_the_reference_s_way_gives_its_result(case: dict[str, Any]) -> None:
    def detokenise() -> np.ndarray:
        codes = VOCABULARY.codes(
            case["tokens"],
            check_prefix=case["validate_action_token_prefix"],
            on_error="reference",
        )
        sizes = {"horizon": case["action_horizon"], "action_dim": case["action_dim"]}
        return FAST.decode([codes], **sizes, on_error="relaxed")[0]

    if "error" in case:
        with pytest.raises(ActionDecodeError):
            detokenise()
        return
    expected = EXPECTED[case["result"]].reshape(case["action_horizon"], case["action_dim"])
    np.testing.assert_allclose(detokenise(), expected, rtol=0, atol=1e-6)


def spell(case: dict[str, Any]) -> np.ndarray:
    codes = VOCABULARY.codes(case["tokens"], check_prefix=case["validate_action_token_prefix"])
    return FAST.decode([codes], horizon=case["action_horizon"], action_dim=case["action_dim"])[0]


@pytest.mark.parametrize("case", RECORDED["detokenize_actions"], ids=name_of)
def test_our_way_gives_a_whole_chunk_or_the_reason(case: dict[str, Any]) -> None:
    whole = WHOLE if case["validate_action_token_prefix"] else WHOLE | WHOLE_WITHOUT_PREFIX
    if case["name"] in whole and case["action_horizon"] == 10:
        expected = EXPECTED[case["result"]].reshape(10, -1)
        np.testing.assert_allclose(spell(case), expected, rtol=0, atol=1e-6)
        return
    with pytest.raises(ActionDecodeError):
        spell(case)


def test_every_kind_of_malformed_row_is_there() -> None:
    assert len({case["name"] for case in RECORDED["detokenize_actions"]}) == 25


@pytest.mark.parametrize(
    "case",
    RECORDED["decode_actions_with_fast"],
    ids=lambda case: f"{case['name']}.{case['relaxed_decoding']}",
)
def test_fast_ids_decode_as_in_the_reference(case: dict[str, Any]) -> None:
    chunk = FAST.decode(
        [case["fast_ids"]],
        horizon=case["time_horizon"],
        action_dim=case["action_dim"],
        on_error="relaxed" if case["relaxed_decoding"] else "reference",
    )
    expected = EXPECTED[case["result"]].reshape(chunk.shape)
    np.testing.assert_allclose(chunk, expected, rtol=0, atol=1e-6)
