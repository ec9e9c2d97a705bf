# SPDX-License-Identifier: Apache-2.0
"""What is looked at before a run: tokenizer, state bins, lengths and losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.policies.pi0_fast.tiny_policy import (
    DIM,
    HORIZON,
    STATE,
    STATS,
    chunks,
    config,
    fast_tokenizer,
)
from vlakit.errors import ConfigError, ProcessingError
from vlakit.features import NormalizationMode
from vlakit.policies.pi0_fast import PI0FastConfig
from vlakit.policies.pi0_fast.processor import make_processors
from vlakit.policies.pi0_fast.startup import check_data, unspellable
from vlakit.processing import FastTokenizer
from vlakit.processing.fast.normalizer import FastNormalizer

FITTED = FastNormalizer(
    mode=NormalizationMode.QUANTILES,
    encoded_dims=[(0, DIM)],
    stats={name: values.tolist() for name, values in STATS["action"].items()},
)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return fast_tokenizer(tmp_path / "fast")


def sample(**changes: Any) -> dict[str, Any]:
    state = torch.rand(32, STATE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    given = {"observation.state": state, "action": chunks(), "task": ["open the door"] * 32}
    return given | changes


def notes(settings: PI0FastConfig, **changes: Any) -> list[str]:
    preprocess, _ = make_processors(settings, STATS)
    return check_data(settings, preprocess, sample(**changes))


def fitted(tokenizer: Path, **changes: Any) -> Path:
    fast = FastTokenizer.from_pretrained(tokenizer)
    fast.normalizer = FastNormalizer(**(vars(FITTED) | changes))
    fast.save_pretrained(tokenizer)
    return tokenizer


def test_data_that_fit_need_no_word(tokenizer: Path) -> None:
    assert notes(config(tokenizer)) == []
    assert notes(config(fitted(tokenizer, repo_id="elsewhere", clip=True))) == []


def test_clipped_states_are_counted(tokenizer: Path) -> None:
    wide = sample()["observation.state"] * 2
    (note,) = notes(config(tokenizer), **{"observation.state": wide})
    share = (wide.abs() > 1).float().mean()
    assert note.startswith(f"{share:.0%} of the state's values lie outside [-1, 1] after QUANTILES")
    assert "write_stats" in note
    raw = config(tokenizer, normalization_mapping={"STATE": "IDENTITY", "ACTION": "QUANTILES"})
    (note,) = notes(raw, **{"observation.state": wide})
    assert '"STATE": "QUANTILES"' in note


def test_another_horizon_or_width_is_refused(tokenizer: Path) -> None:
    longer = config(tokenizer, chunk_size=HORIZON + 2)
    message = (
        rf"fitted on chunks of {HORIZON} actions, but --policy.chunk_size={HORIZON + 2}. "
        rf"Give --policy.chunk_size={HORIZON}"
    )
    with pytest.raises(ConfigError, match=message):
        notes(longer, action=torch.zeros(4, HORIZON + 2, DIM))
    settings = config(tokenizer)
    wider = settings.override(
        {"output_features": {"action": {"type": "ACTION", "shape": [DIM + 1]}}}
    )
    with pytest.raises(ConfigError, match=rf"actions of {DIM} dimensions, but the policy's have"):
        notes(wider)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": NormalizationMode.MEAN_STD}, "mode: MEAN_STD in the tokenizer, QUANTILES in the"),
        ({"encoded_dims": [(0, 1)]}, r"dimensions: \[0\] in the tokenizer, \[0, 1\]"),
        ({"relative_dims": [0]}, r"relative dimensions: \[0\] in the tokenizer, \[\]"),
        ({"stats": {"q01": [-2.0, -1.0], "q99": [1.0, 1.0]}}, "'q01' of action dimension 0: -2 in"),
    ],
)
def test_another_normalisation_is_refused(
    tokenizer: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        notes(config(fitted(tokenizer, **changes)))


def test_relative_tokenizers_may_have_other_statistics(tokenizer: Path) -> None:
    other = {"q01": [-2.0, -1.0], "q99": [1.0, 1.0]}
    settings = config(
        fitted(tokenizer, relative_dims=[0, 1], stats=other), use_relative_actions=True
    )
    (note,) = notes(settings, **{"observation.state": torch.zeros(32, STATE)})
    assert "relative actions under other statistics" in note


def test_long_chunks_and_prompts_are_refused_before_the_run(tokenizer: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_action_tokens=9 \(\d+\.\d% of 32 chunks"):
        notes(config(tokenizer, max_action_tokens=9))
    with pytest.raises(ProcessingError, match="tokenizer_max_length=8"):
        notes(config(tokenizer, tokenizer_max_length=8))
    assert notes(config(tokenizer, tokenizer_max_length=8, allow_truncation=True)) == []
    (note,) = notes(config(tokenizer, max_decoding_steps=5))
    assert "more than --policy.max_decoding_steps=5" in note


def test_chunks_that_cannot_be_spelled_are_counted(tokenizer: Path) -> None:
    actions = chunks()
    actions[7] *= -40
    fast = FastTokenizer.from_pretrained(tokenizer)
    assert list(unspellable(fast, actions.numpy())) == [7]
    roomy = config(tokenizer, max_action_tokens=300)
    with pytest.raises(ConfigError, match=r"1 of 32 sampled chunks .* without a loss"):
        notes(roomy, action=actions)
    many = {name: [*value, *value, *value, *value] for name, value in sample().items()
            if name == "task"}  # fmt: skip
    many |= {
        "action": torch.cat([actions, chunks(), chunks(), chunks()]),
        "observation.state": sample()["observation.state"].repeat(4, 1),
    }
    (note,) = (text for text in notes(roomy, **many) if "without a loss" in text)
    assert note.startswith("1 of 128 sampled chunks")
    assert note.endswith("What is lost is cut, as in LeRobot.")
