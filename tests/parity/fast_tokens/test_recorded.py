# SPDX-License-Identifier: Apache-2.0
"""The FAST tokenizer against what LeRobot 0.6.1 encoded, decoded and fitted."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.fixtures_root import FIXTURE_ROOT
from vlakit.errors import ActionDecodeError, ProcessingError
from vlakit.processing import FastTokenizer

CASES = FIXTURE_ROOT / "tokenizer_cases"
RECORDED = json.loads((CASES / "fast.json").read_text(encoding="utf-8"))
DETOKENIZED = FIXTURE_ROOT / "pi0_fast" / "overfit"
DETOKENIZED_CASES = json.loads((DETOKENIZED / "detok.json").read_text(encoding="utf-8"))
FITTED = {
    "tokenizers/fast": "chunks",
    "dataset/fast_quantiles": "encoded_normalized_chunks",
    "dataset/fast_sampled_relative_meanstd": "encoded_normalized_chunks",
}

Case = dict[str, Any]


@pytest.fixture(scope="module")
def tokenizer() -> FastTokenizer:
    return FastTokenizer.from_pretrained(FIXTURE_ROOT / RECORDED["tokenizer"])


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return load_file(CASES / "fast.safetensors")


def test_settings_are_read(tokenizer: FastTokenizer) -> None:
    assert tokenizer.scale == RECORDED["scale"]
    assert tokenizer.min_token == RECORDED["min_token"]
    assert (tokenizer.horizon, tokenizer.action_dim, tokenizer.vocab_size) == (10, 4, 512)


@pytest.mark.parametrize("case", RECORDED["encode"], ids=lambda case: case["name"])
def test_ids_and_decoded_chunks_are_the_recorded_ones(
    case: Case, tokenizer: FastTokenizer, arrays: dict[str, np.ndarray]
) -> None:
    chunk = arrays[f"{case['name']}.chunk"]
    horizon, action_dim = chunk.shape[-2:]
    ids = tokenizer.encode(chunk, on_error="reference")
    assert ids == case["tokens"]
    assert tokenizer.encode(chunk.astype(np.float64), on_error="reference") == case["tokens"]
    decoded = tokenizer.decode(ids, horizon=horizon, action_dim=action_dim, on_error="reference")
    np.testing.assert_allclose(decoded, arrays[f"{case['name']}.decoded"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", RECORDED["encode"], ids=lambda case: case["name"])
def test_what_the_reference_loses_is_refused(
    case: Case, tokenizer: FastTokenizer, arrays: dict[str, np.ndarray]
) -> None:
    chunk = arrays[f"{case['name']}.chunk"]
    coefficients = arrays[f"{case['name']}.rounded_dct"]
    # The alphabet of this tokenizer holds the coefficients of its training chunks only.
    is_known = coefficients.min() >= RECORDED["min_token"] and coefficients.max() <= 47
    assert (is_known or coefficients.max() > 47) or case["coef_below_min_token"]
    if is_known:
        assert tokenizer.encode(chunk) == case["tokens"]
    else:
        with pytest.raises(ProcessingError, match=r"chunk \d.* would be lost"):
            tokenizer.encode(chunk)


@pytest.mark.parametrize("case", RECORDED["decode"], ids=lambda case: case["name"])
def test_strict_decoding_gives_the_recorded_zeros_or_says_why(
    case: Case, tokenizer: FastTokenizer, arrays: dict[str, np.ndarray]
) -> None:
    sizes = {"horizon": case["time_horizon"], "action_dim": case["action_dim"]}
    decoded = tokenizer.decode([case["tokens"]], **sizes, on_error="reference")
    np.testing.assert_allclose(decoded[0], arrays[case["result"]], rtol=0, atol=1e-12)
    assert case["all_zero"] == (not decoded.any())
    if case["all_zero"] or case["name"] == "beyond_vocab":
        with pytest.raises(ActionDecodeError) as caught:
            tokenizer.decode([case["tokens"]], **sizes)
        assert list(caught.value.failures) == [0]
    else:
        np.testing.assert_array_equal(tokenizer.decode([case["tokens"]], **sizes), decoded)


@pytest.mark.parametrize(
    "case",
    DETOKENIZED_CASES["decode_actions_with_fast"],
    ids=lambda case: f"{case['name']}-{'relaxed' if case['relaxed_decoding'] else 'strict'}",
)
def test_relaxed_decoding_is_the_policys(case: Case, tokenizer: FastTokenizer) -> None:
    expected = load_file(DETOKENIZED / "detok_expected.safetensors")[case["result"]]
    decoded = tokenizer.decode(
        [case["fast_ids"]],
        horizon=case["time_horizon"],
        action_dim=case["action_dim"],
        on_error="relaxed" if case["relaxed_decoding"] else "reference",
    )
    np.testing.assert_allclose(decoded[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("folder", FITTED)
def test_fitting_again_gives_the_same_files(folder: str, tmp_path: Any) -> None:
    place = FIXTURE_ROOT / folder
    chunks = load_file(place / "training_chunks.safetensors")[FITTED[folder]]
    recorded = json.loads((place / "processor_config.json").read_text(encoding="utf-8"))
    fitted = FastTokenizer.train(
        chunks,
        vocab_size=recorded["vocab_size"],
        scale=recorded["scale"],
        alphabet="reference",
    )
    fitted.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (place / "tokenizer.json").read_bytes()
    saved = json.loads((tmp_path / "processor_config.json").read_text(encoding="utf-8"))
    assert saved | {"auto_map": None} == recorded | {"auto_map": None}
    assert fitted.encode(chunks) == FastTokenizer.from_pretrained(place).encode(chunks)


def test_compression_is_the_recorded_one(tokenizer: FastTokenizer) -> None:
    place = FIXTURE_ROOT / "tokenizers" / "fast"
    chunks = load_file(place / "training_chunks.safetensors")["chunks"]
    info = json.loads((place / "training_info.json").read_text(encoding="utf-8"))
    lengths = [len(ids) for ids in tokenizer.encode(chunks)]
    assert np.mean(lengths) == info["compression_stats"]["mean_token_length"]
    assert max(lengths) == info["compression_stats"]["max_token_length"]
