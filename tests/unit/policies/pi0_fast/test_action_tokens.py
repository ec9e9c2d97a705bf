# SPDX-License-Identifier: Apache-2.0
"""FAST ids in the text vocabulary, the fixed tokens around them, and what is refused."""

from __future__ import annotations

import random
from dataclasses import fields

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.fixtures_root import FIXTURE_ROOT
from vlakit.errors import ActionDecodeError, CheckpointError, ProcessingError
from vlakit.policies.pi0_fast.action_tokens import ActionVocabulary
from vlakit.processing.text import TextTokenizer

PALIGEMMA = FIXTURE_ROOT / "tokenizers" / "tiny-paligemma"
PREFIX = [431, 314, 384]
BAR = 377


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.from_pretrained(PALIGEMMA)


@pytest.fixture(scope="module")
def vocabulary(tokenizer: TextTokenizer) -> ActionVocabulary:
    return ActionVocabulary.from_tokenizer(tokenizer, skip_tokens=128, fast_vocab_size=512)


def toy_tokenizer(pieces: list[str]) -> TextTokenizer:
    model = models.WordLevel(
        {piece: index for index, piece in enumerate(pieces)}, unk_token=pieces[0]
    )
    tokenizer = Tokenizer(model)
    # Marks a space as SentencePiece does, and splits around it and around punctuation.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="never"), pre_tokenizers.Punctuation()]
    )
    return TextTokenizer(tokenizer, "a toy", ())


def test_the_fixed_tokens_are_read_from_the_tokenizer(vocabulary: ActionVocabulary) -> None:
    values = {field.name: getattr(vocabulary, field.name) for field in fields(vocabulary)}
    assert values == {
        "text_vocab_size": 4096,
        "num_pieces": 4097,
        "skip_tokens": 128,
        "fast_vocab_size": 512,
        "bos_id": 2,
        "eos_id": 1,
        "pad_id": 0,
        "bar_id": BAR,
        "prefix_ids": tuple(PREFIX),
    }


def test_fast_ids_take_the_places_of_location_pieces(
    tokenizer: TextTokenizer, vocabulary: ActionVocabulary
) -> None:
    assert tokenizer.pieces(vocabulary.to_text_ids([0, 1, 511])) == [
        "<loc1023>",
        "<loc1022>",
        "<loc0512>",
    ]
    every_id = list(range(512))
    text_ids = vocabulary.to_text_ids(every_id)
    assert text_ids[::-1] == list(vocabulary.head_ids)
    assert vocabulary.to_fast_ids(text_ids) == every_id


@pytest.mark.parametrize("wrong", [-1, 512])
def test_an_id_of_another_fast_tokenizer_is_refused(
    vocabulary: ActionVocabulary, wrong: int
) -> None:
    with pytest.raises(ProcessingError, match=rf"FAST id {wrong} .*0 \.\. 511"):
        vocabulary.to_text_ids([3, wrong])


def test_training_sequences_of_both_layouts(vocabulary: ActionVocabulary) -> None:
    codes = [3967, 3957]
    assert vocabulary.training_ids([0, 10], "lerobot") == [2, *PREFIX, *codes, BAR, 1]
    assert vocabulary.training_ids([0, 10], "openpi") == [*PREFIX, *codes, BAR, 1]


def test_codes_are_read_back_whatever_follows_the_bar(vocabulary: ActionVocabulary) -> None:
    chance = random.Random(0)
    for _ in range(200):
        fast_ids = [chance.randrange(512) for _ in range(chance.randrange(40))]
        after = [chance.randrange(4096) for _ in range(chance.randrange(5))]
        text_ids = vocabulary.chunk_ids(fast_ids) + after
        assert vocabulary.codes(text_ids, check_prefix=True) == fast_ids
        assert vocabulary.codes(text_ids, check_prefix=False) == fast_ids
        assert vocabulary.codes(text_ids[3:], check_prefix=False) == fast_ids


@pytest.mark.parametrize(
    ("text_ids", "reason"),
    [
        ([3960, BAR], "starts with .* expected 'Action: '"),
        ([431, 314, 3960, BAR], "starts with .* expected 'Action: '"),
        ([2, *PREFIX, 3960, BAR], "starts with .* expected 'Action: '"),
        ([*PREFIX, 3960, 0, 0], "no end marker '|' in 6 tokens"),
        ([*PREFIX, 3960, 416, BAR], "token 416 .* no action token"),
        ([*PREFIX, *PREFIX, 3960, BAR], "token 431 .* no action token"),
        ([*PREFIX, 3968, BAR], "token 3968 .* no action token"),
        ([*PREFIX, 3455, BAR], "token 3455 .* no action token"),
    ],
)
def test_malformed_rows_are_refused_with_the_reason(
    vocabulary: ActionVocabulary, text_ids: list[int], reason: str
) -> None:
    with pytest.raises(ActionDecodeError, match=reason):
        vocabulary.codes(text_ids, check_prefix=True)


def test_a_tokenizer_that_splits_the_prefix_otherwise_is_refused_with_its_pieces() -> None:
    qwen = TextTokenizer.from_pretrained(FIXTURE_ROOT / "tokenizers" / "tiny-qwen2.5-vl")
    with pytest.raises(CheckpointError, match=r"splits 'Action: ' into \[.*\], expected"):
        ActionVocabulary.from_tokenizer(qwen, skip_tokens=0, fast_vocab_size=8)


def test_a_tokenizer_without_end_marker_is_refused() -> None:
    pieces = ["<pad>", "<eos>", "<bos>", "Action", ":", "▁", *(f"<loc{i}>" for i in range(8))]
    with pytest.raises(CheckpointError, match=r"no piece '\|'.*--policy.text_tokenizer_name"):
        ActionVocabulary.from_tokenizer(toy_tokenizer(pieces), skip_tokens=0, fast_vocab_size=8)


@pytest.mark.parametrize(
    ("fast_vocab_size", "skip_tokens", "problem"),
    [
        (3968 - BAR, 128, r"cover \['\|', '▁', 'Action'\]"),
        (3969, 128, "cover .* expected free pieces"),
        (512, -1, "do not fit"),
        (512, 4096, "do not fit"),
    ],
)
def test_fast_ids_without_room_are_refused(
    tokenizer: TextTokenizer, fast_vocab_size: int, skip_tokens: int, problem: str
) -> None:
    with pytest.raises(CheckpointError, match=problem):
        ActionVocabulary.from_tokenizer(
            tokenizer, skip_tokens=skip_tokens, fast_vocab_size=fast_vocab_size
        )


def test_the_largest_fast_vocabulary_that_has_room_is_taken(tokenizer: TextTokenizer) -> None:
    largest = 3968 - 432
    vocabulary = ActionVocabulary.from_tokenizer(
        tokenizer, skip_tokens=128, fast_vocab_size=largest
    )
    assert vocabulary.head_ids == range(432, 3968)
