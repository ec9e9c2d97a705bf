# SPDX-License-Identifier: Apache-2.0
"""Fixed shapes change nothing: the engine on and off, on every recorded batch."""

from __future__ import annotations

import pytest
import torch

from tests.fixtures_root import cases
from tests.parity.pi0_fast.recorded import RecordedCase, relative
from vlakit.policies.pi0_fast.sequence import cut, keep_visible

NAMES = cases("pi0_fast")


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_those_of_the_plain_engine(name: str) -> None:
    case = RecordedCase(name)
    batch = case.processors()[0](case.raw("infer"))
    settings = {"dtype": "float32", "max_decoding_steps": 256}
    plain, static = (case.policy(engine=engine, **settings) for engine in ("plain", "static"))
    tokens = static.predict_action_tokens(batch)
    assert tokens == plain.predict_action_tokens(batch)
    assert static.predict_action_tokens(batch) == tokens  # buffers are used again
    assert len(static._recordings) == 1
    assert not len(plain._recordings)


@pytest.mark.parametrize("name", NAMES)
def test_sampled_tokens_are_those_of_the_plain_engine(name: str) -> None:
    case = RecordedCase(name)
    batch = case.processors()[0](case.raw("infer"))
    settings = {"dtype": "float32", "max_decoding_steps": 256, "temperature": 0.7}
    plain, static = (case.policy(engine=engine, **settings) for engine in ("plain", "static"))
    noise = torch.rand(case.note["batch"], 256, generator=torch.Generator().manual_seed(3))
    chunk = static.predict_action_chunk(batch, noise=noise)
    assert torch.equal(chunk, plain.predict_action_chunk(batch, noise=noise))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_hidden_states_stay_within_rounding(name: str, dtype: str) -> None:
    """In bfloat16 two tokens may tie; what they are chosen from is as near as rounding allows."""
    case = RecordedCase(name)
    policy = case.policy(dtype=dtype)
    model, inputs = policy.model, policy._inputs(case.processors()[0](case.raw("infer")))
    model.join_weights()
    start = inputs.prompt_ids.new_full((case.note["batch"], 3), 7)
    kept = keep_visible(inputs.image_mask, inputs.prompt_mask, multiple=16)
    ends = {"causal_from": 1, "max_new_tokens": 8}
    plain = model.prefill(inputs, start, **ends)
    fixed = model.prefill(cut(inputs, kept), start, kept=kept, **ends)
    tolerance = 2e-5 if dtype == "float32" else 3e-2
    for token in range(8):
        assert relative(fixed.hidden, plain.hidden) <= tolerance
        ids = torch.arange(case.note["batch"]) + 11 * token
        model.step(plain, ids)
        model.step(fixed, ids)
    assert fixed.slots is not None
    assert (fixed.slots == fixed.first + 8).all()
