# SPDX-License-Identifier: Apache-2.0
"""Guesses change how many passes a chunk takes, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import torch

from tests.unit.policies.pi0_fast.tiny_policy import config, fast_tokenizer, processors, raw_batch
from vlakit.errors import ConfigError
from vlakit.policies.pi0_fast import PI0FastPolicy
from vlakit.policies.pi0_fast.model import Decoding
from vlakit.policies.pi0_fast.run import Run
from vlakit.policies.pi0_fast.speculation import drafts

KINDS = ["previous_chunk", "ngram"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fast_tokenizer(tmp_path_factory.mktemp("fast"))


def policies(tokenizer: Path, kind: str, **changes: object) -> tuple[PI0FastPolicy, PI0FastPolicy]:
    """Return one network twice: token by token, and with guesses."""
    torch.manual_seed(3)
    plain = PI0FastPolicy(config(tokenizer, **changes))
    guessing = PI0FastPolicy(config(tokenizer, speculative=kind, **changes))
    guessing.load_state_dict(plain.state_dict())
    return plain, guessing


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_plain_decoding(tokenizer: Path, kind: str) -> None:
    plain, guessing = policies(tokenizer, kind)
    preprocess, _ = processors(plain.config)
    generator = torch.Generator().manual_seed(0)
    for rows in (3, 3, 2, 1, 1):  # guesses of another number of rows are not used
        raw = raw_batch(rows, with_actions=False)
        noise = torch.rand(raw["observation.state"].shape, generator=generator) - 0.5
        raw["observation.state"] += noise / 10  # a robot that has moved a little
        batch = preprocess(raw)
        assert guessing.predict_action_tokens(batch) == plain.predict_action_tokens(batch)
    assert plain.tokens_per_pass == 1.0
    assert guessing.decoded_tokens == plain.decoded_tokens


@pytest.mark.parametrize("kind", KINDS)
def test_a_chunk_that_repeats_takes_fewer_passes(tokenizer: Path, kind: str) -> None:
    _, guessing = policies(tokenizer, kind)
    batch = processors(guessing.config)[0](raw_batch(1, with_actions=False))
    first = guessing.predict_action_tokens(batch)
    passes, tokens = guessing.decoding_passes, guessing.decoded_tokens
    assert guessing.predict_action_tokens(batch) == first
    assert guessing.decoding_passes - passes < tokens / 2
    guessing.reset()  # another episode: nothing to guess from but the chunk itself
    assert guessing._previous is None
    assert guessing.predict_action_tokens(batch) == first


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_of_the_longest_kind_do_not_leave_their_slots(tokenizer: Path, kind: str) -> None:
    plain, guessing = policies(tokenizer, kind, max_decoding_steps=9)
    batch = processors(plain.config)[0](raw_batch(3, with_actions=False))
    for _ in range(2):
        assert guessing.predict_action_tokens(batch) == plain.predict_action_tokens(batch)


def test_a_temperature_samples_the_same_tokens(tokenizer: Path) -> None:
    plain, guessing = policies(tokenizer, "previous_chunk", temperature=0.8)
    batch = processors(plain.config)[0](raw_batch(3, with_actions=False))
    noise = torch.rand(3, 24, generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        expected = plain.predict_action_chunk(batch, noise=noise)
        assert torch.equal(guessing.predict_action_chunk(batch, noise=noise), expected)
    assert guessing.tokens_per_pass > 1.0


def _run(previous: list[list[int]], said: list[list[int]]) -> Run:
    width = len(previous[0])
    run = Run.start(
        cast(Decoding, None),
        torch.zeros(len(said), dtype=torch.long),
        width,
        None,
        torch.tensor(previous),
    )
    for place in range(max(map(len, said))):
        is_there = torch.tensor([place < len(row) for row in said])
        chosen = torch.tensor([row[place] if place < len(row) else 0 for row in said])
        run.take(chosen, run.positions, is_there)
    return run


def test_the_last_chunk_guesses_what_stood_at_the_same_places() -> None:
    run = _run([[5, 6, 7, 8, -1], [1, 2, 3, -1, -1]], [[5, 6], [9, 9, 9]])
    assert drafts(run, "previous_chunk", 3).tolist() == [[7, 8, -1], [-1, -1, -1]]


def test_pairs_count_more_than_single_tokens_and_later_ones_more_than_earlier() -> None:
    previous = [[4, 7, 1, 9, 7, 2], [-1] * 6, [3, 3, 3, 3, 3, 3]]
    run = _run(previous, [[4, 7], [8, 5, 8, 5], [6]])
    assert drafts(run, "ngram", 2).tolist() == [[1, 9], [8, 5], [-1, -1]]


def test_guesses_need_constrained_decoding(tokenizer: Path) -> None:
    with pytest.raises(ConfigError, match=r"--policy\.speculative=ngram needs .*constrained"):
        config(tokenizer, speculative="ngram", decoding="reference")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler uses what torch deprecates
def test_compiled_layers_say_the_same(tokenizer: Path) -> None:
    plain, _ = policies(tokenizer, "off")
    compiled = PI0FastPolicy(
        config(tokenizer, engine="static", compile_model=True, compile_mode="default")
    )
    compiled.load_state_dict(plain.state_dict())
    batch = processors(plain.config)[0](raw_batch(2, with_actions=False))
    for _ in range(2):
        assert compiled.predict_action_tokens(batch) == plain.predict_action_tokens(batch)
