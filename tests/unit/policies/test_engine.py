# SPDX-License-Identifier: Apache-2.0
"""Which engine computes chunks, and what a warm-up leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.unit.policies.eo1.tiny import tiny_batch, tiny_config, tiny_policy
from tests.unit.policies.pi0_fast.tiny_policy import config, fast_tokenizer, processors, raw_batch
from vlakit.errors import ConfigError
from vlakit.policies.pi0_fast import PI0FastPolicy


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fast_tokenizer(tmp_path_factory.mktemp("fast"))


@pytest.mark.parametrize(
    ("engine", "is_fixed"), [("auto", False), ("plain", False), ("static", True)]
)
def test_a_cpu_takes_the_shapes_that_come_unless_asked(engine: str, is_fixed: bool) -> None:
    assert tiny_policy(engine=engine).has_fixed_shapes is is_fixed


def test_flash_attention_keeps_the_shapes_of_the_batch() -> None:
    with pytest.raises(ConfigError, match=r"engine=static with .*flash_attention_2"):
        tiny_config(engine="static", attn_implementation="flash_attention_2")


def test_a_warm_up_records_what_later_calls_find() -> None:
    policy, batch = tiny_policy(engine="static"), tiny_batch(side="left")
    assert policy.recording_s == 0
    assert policy.warm_up(batch) > policy.recording_s > 0
    recorded_s = policy.recording_s
    assert len(policy._recordings) == 1
    noise = torch.randn(policy._noise_shape(2))
    expected = policy.predict_action_chunk(batch, noise=noise)
    kept = expected.clone()
    policy.predict_action_chunk(batch)
    assert torch.equal(expected, kept)  # a chunk is the caller's, not a buffer
    assert len(policy._recordings) == 1
    assert policy.recording_s == recorded_s


def test_trained_and_moved_weights_are_those_that_act(tokenizer: Path) -> None:
    torch.manual_seed(0)
    static, other = (PI0FastPolicy(config(tokenizer, engine=e)) for e in ("static", "plain"))
    batch = processors(static.config)[0](raw_batch(2, with_actions=False))
    static.warm_up(batch)
    static.load_state_dict(other.state_dict())  # in place
    assert static.predict_action_tokens(batch) == other.predict_action_tokens(batch)
    static.to(torch.float64).to(torch.float32)  # elsewhere
    assert static.predict_action_tokens(batch) == other.predict_action_tokens(batch)
