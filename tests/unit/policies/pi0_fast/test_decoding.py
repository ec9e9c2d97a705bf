# SPDX-License-Identifier: Apache-2.0
"""Decoding on networks whose logits are tables: whatever they say, every chunk is well-formed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.fixtures_root import FIXTURE_ROOT
from vlakit.errors import ActionDecodeError, ConfigError
from vlakit.policies.pi0_fast.action_tokens import ActionVocabulary
from vlakit.policies.pi0_fast.decoding import ConstrainedDecoder
from vlakit.policies.pi0_fast.generated import Generated
from vlakit.policies.pi0_fast.model import PI0FastModel
from vlakit.policies.pi0_fast.reference_decoding import decode_as_reference, read_codes
from vlakit.policies.pi0_fast.sequence import PI0FastInputs
from vlakit.processing import FastTokenizer
from vlakit.processing.text import TextTokenizer

HORIZON, ACTION_DIM = 10, 4
NUM_COEFFICIENTS = HORIZON * ACTION_DIM
PIECES = 4096
BOS, PREFIX, BAR, NEWLINE = 2, [431, 314, 384], 377, 25

Logits = Callable[[Tensor, list[Tensor]], Tensor]
"""Indices of rows (batch,) and all ids fed so far, (batch,) each -> logits (batch, PIECES)."""


@dataclass
class TableDecoding:
    """What `PI0FastModel.prefill` returns, as far as decoding looks at it."""

    hidden: Tensor
    fed: list[Tensor]
    steps_left: int


@dataclass
class TableNetwork:
    """Stands for a network: its hidden state is the logits themselves."""

    table: Logits
    steps: int = 0
    prefills: list[tuple[list[int], int]] = field(default_factory=list)

    def embed_prefix(self, inputs: PI0FastInputs) -> PI0FastInputs:
        return inputs

    def prefill(
        self,
        inputs: PI0FastInputs,
        start_ids: Tensor,
        *,
        causal_from: int,
        max_new_tokens: int,
        kept: None = None,
    ) -> TableDecoding:
        self.prefills.append((start_ids[0].tolist(), causal_from))
        self.rows = inputs.prompt_ids[:, 0]
        fed = list(start_ids.unbind(1))
        return TableDecoding(self.table(self.rows, fed), fed, max_new_tokens)

    def step(self, decoding: TableDecoding, ids: Tensor) -> None:
        assert decoding.steps_left > 0, "more steps than prefill was asked for"
        decoding.steps_left -= 1
        self.steps += 1
        decoding.fed.append(ids)
        decoding.hidden = self.table(self.rows, decoding.fed)

    def logits(self, hidden: Tensor, rows: Any = None) -> Tensor:
        return hidden if rows is None else hidden[:, rows]


def network(table: Logits) -> tuple[TableNetwork, PI0FastModel]:
    """Return a network twice, for the test and for the decoder's types."""
    fake = TableNetwork(table)
    return fake, cast(PI0FastModel, fake)


def inputs_of(rows: Sequence[int]) -> PI0FastInputs:
    """Return inputs whose prompts are only the numbers of their rows."""
    prompt_ids = torch.tensor(rows)[:, None]
    images = torch.zeros(len(rows), 1, 3, 1, 1)
    mask = torch.ones_like(prompt_ids, dtype=torch.bool)
    return PI0FastInputs(images, mask, prompt_ids, mask)


def random_table(seed: int, spread: float = 1.0) -> Logits:
    """Return logits that depend on the row and on every id fed so far."""
    generator = torch.Generator().manual_seed(seed)
    pool = torch.randn(509, PIECES, generator=generator) * spread

    def logits(rows: Tensor, fed: list[Tensor]) -> Tensor:
        index = rows * 101 + 7
        for ids in fed:
            index = (index * 31 + ids * 17 + 5) % 509
        return pool[index % 509]

    return logits


@cache
def text_tokenizer() -> TextTokenizer:
    return TextTokenizer.from_pretrained(FIXTURE_ROOT / "tokenizers" / "tiny-paligemma")


@cache
def fast_tokenizer(kind: str) -> FastTokenizer:
    if kind == "recorded":
        return FastTokenizer.from_pretrained(FIXTURE_ROOT / "tokenizers" / "fast")
    chunks = np.random.default_rng(0).normal(size=(300, HORIZON, ACTION_DIM)).cumsum(axis=1) / 4
    if kind == "unsplit":
        return FastTokenizer.train(chunks, vocab_size=400, regex_split=False)
    # Codes from 128 on take two bytes, and not every byte that may follow is in the vocabulary.
    wide = FastTokenizer.train(chunks, vocab_size=900, scale=20.0, alphabet="reference")
    assert not set(range(256)) <= {piece[0] for piece in wide.token_bytes if len(piece) == 1}
    return wide


KINDS = ("recorded", "unsplit", "foreign")


def vocabulary_of(fast: FastTokenizer) -> ActionVocabulary:
    return ActionVocabulary.from_tokenizer(
        text_tokenizer(), skip_tokens=128, fast_vocab_size=fast.vocab_size
    )


def decoder_for(fast: FastTokenizer, **changes: Any) -> ConstrainedDecoder:
    settings: dict[str, Any] = {
        "num_coefficients": NUM_COEFFICIENTS,
        "max_steps": 256,
        "layout": "lerobot",
        "temperature": 0.0,
    }
    return ConstrainedDecoder(vocabulary_of(fast), fast.token_bytes, **settings | changes)


def plain(fast: FastTokenizer, model: PI0FastModel, rows: Sequence[int], **changes: Any) -> Tensor:
    settings: dict[str, Any] = {
        "max_steps": 64,
        "layout": "lerobot",
        "temperature": 0.0,
        "use_kv_cache": True,
    }
    return decode_as_reference(model, inputs_of(rows), vocabulary_of(fast), **settings | changes)


def is_chunk(fast: FastTokenizer, codes: list[int]) -> bool:
    try:
        fast.decode([codes], horizon=HORIZON, action_dim=ACTION_DIM)
    except ActionDecodeError:
        return False
    return True


def check_well_formed(fast: FastTokenizer, generated: Generated) -> None:
    assert not generated.failures
    chunks = fast.decode(generated.codes, horizon=HORIZON, action_dim=ACTION_DIM)
    assert np.isfinite(chunks).all()
    vocabulary = vocabulary_of(fast)
    for text_ids, codes in zip(generated.text_ids, generated.codes, strict=True):
        assert vocabulary.codes(text_ids, check_prefix=True) == codes


@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_random_chunks_are_well_formed(kind: str, temperature: float) -> None:
    """10,002 of them, over the parameters."""
    fast, rows = fast_tokenizer(kind), range(1667)
    fake, model = network(random_table(seed=1))
    decoder = decoder_for(fast, temperature=temperature)
    generated = decoder.decode(model, inputs_of(rows))
    check_well_formed(fast, generated)
    assert len(generated.codes) == len(rows)
    lengths = {len(codes) for codes in generated.codes}
    assert len(lengths) > 5, "rows ended together"
    assert fake.steps == max(lengths) - 1, "a step was computed that no row needed"


@pytest.mark.parametrize("kind", KINDS)
def test_random_logits_are_well_formed_within_few_steps(kind: str) -> None:
    fast = fast_tokenizer(kind)
    _, model = network(random_table(seed=2))
    with pytest.raises(ConfigError, match="max_decoding_steps=1 is too small") as error:
        decoder_for(fast, max_steps=1)
    least = int(str(error.value).split("at least ")[1].split()[0])
    for max_steps in (least, least + 1, least + 5):
        generated = decoder_for(fast, max_steps=max_steps).decode(model, inputs_of(range(50)))
        check_well_formed(fast, generated)
        assert max(len(codes) for codes in generated.codes) <= max_steps


def favoured_codes(fast: FastTokenizer, rows: int) -> list[list[int]]:
    """Return the codes of one chunk per row."""
    chunks = np.random.default_rng(4).normal(size=(rows, HORIZON, ACTION_DIM)).cumsum(axis=1) / 4
    return fast.encode(chunks, on_error="reference")


def favouring(fast: FastTokenizer, codes: list[list[int]], bonus: float) -> Logits:
    """Return noise, with a bonus on the tokens of the given chunks."""
    vocabulary, generator = vocabulary_of(fast), torch.Generator().manual_seed(3)
    sequences = [vocabulary.training_ids(row, "lerobot") for row in codes]
    length = 70
    wanted = torch.tensor([(ids + [NEWLINE] * length)[:length] for ids in sequences])
    pool = torch.randn(251, PIECES, generator=generator)

    def logits(rows: Tensor, fed: list[Tensor]) -> Tensor:
        index = rows * 101 + 7
        for ids in fed:
            index = index * 31 + ids * 17 + 5
        scores = pool[index % 251].clone()
        scores[torch.arange(len(rows)), wanted[rows, len(fed)]] += bonus
        return scores

    return logits


@pytest.mark.parametrize("kind", KINDS)
def test_where_plain_greedy_is_well_formed_the_chunk_is_the_same(kind: str) -> None:
    fast, rows = fast_tokenizer(kind), range(500)
    codes = favoured_codes(fast, len(rows))
    _, model = network(favouring(fast, codes, bonus=5.6))
    read = read_codes(plain(fast, model, rows), vocabulary_of(fast), check_prefix=True)
    generated = decoder_for(fast, max_steps=60).decode(model, inputs_of(rows))
    check_well_formed(fast, generated)
    good = [row for row in rows if row not in read.failures and is_chunk(fast, read.codes[row])]
    assert 150 <= len(good) <= 350, "so many are well-formed that nothing is shown, or so few"
    assert [row for row in good if read.codes[row] != codes[row]], "no noise is among them"
    for row in good:
        assert generated.text_ids[row] == read.text_ids[row]


def test_ties_fall_as_in_the_full_head() -> None:
    """In bfloat16 equal logits are common; the full head takes the first piece of equal ones."""
    fast, rows = fast_tokenizer("recorded"), range(40)
    vocabulary, sharp = vocabulary_of(fast), random_table(seed=5)

    def clipped(rows: Tensor, fed: list[Tensor]) -> Tensor:
        return sharp(rows, fed).clamp(max=0)

    decoder = decoder_for(fast, num_coefficients=1)
    generated = decoder.decode(network(clipped)[1], inputs_of(rows))
    whole = [code for code, piece in enumerate(fast.token_bytes) if len(piece) == 1]
    pieces = sorted(vocabulary.to_text_ids(whole))
    start = [torch.full((40,), id_) for id_ in (BOS, *PREFIX)]
    scores = clipped(torch.tensor(rows), start)[:, pieces]
    for row, text_ids in enumerate(generated.text_ids):
        ties = (scores[row] == scores[row].max()).nonzero().flatten().tolist()
        assert len(ties) > 1
        assert text_ids[3] == pieces[ties[0]]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_rows_do_not_depend_on_the_rows_beside_them(temperature: float) -> None:
    fast, rows = fast_tokenizer("recorded"), [5, 17, 2, 60, 8]
    _, model = network(random_table(seed=6))
    decoder = decoder_for(fast, temperature=temperature)
    noise = torch.rand(5, 256, generator=torch.Generator().manual_seed(1))
    together = decoder.decode(model, inputs_of(rows), noise)
    for index, row in enumerate(rows):
        alone = decoder.decode(model, inputs_of([row]), noise[index : index + 1])
        assert alone.codes == [together.codes[index]]
    assert len({len(codes) for codes in together.codes}) > 1


def test_looking_at_the_device_less_often_changes_nothing() -> None:
    fast, rows = fast_tokenizer("recorded"), range(60)
    _, model = network(random_table(seed=7))
    decoder = decoder_for(fast, max_steps=33)
    every_step = decoder.decode(model, inputs_of(rows))
    for steps in (3, 8, 100):
        decoder._transfer_every = steps
        assert decoder.decode(model, inputs_of(rows)) == every_step


def one_coefficient_decoder(logits: list[float], temperature: float) -> tuple[Any, PI0FastModel]:
    """Return a decoder of single codes 0 .. 3 and a network that always says the same."""
    vocabulary = ActionVocabulary.from_tokenizer(
        text_tokenizer(), skip_tokens=128, fast_vocab_size=len(logits)
    )
    decoder = ConstrainedDecoder(
        vocabulary,
        [b"a", b"b", b"c", b"\xc3"],
        num_coefficients=1,
        max_steps=4,
        layout="lerobot",
        temperature=temperature,
    )

    def constant(rows: Tensor, fed: list[Tensor]) -> Tensor:
        scores = torch.full((len(rows), PIECES), 30.0)
        scores[:, list(vocabulary.head_ids)] = torch.tensor(logits).flip(0)
        return scores

    return decoder, network(constant)[1]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_uniforms_are_drawn_from_the_softmax_of_what_is_allowed(temperature: float) -> None:
    logits = [0.3, -1.0, 1.7, 50.0]  # the last is half a character without an end
    decoder, model = one_coefficient_decoder(logits, temperature)
    draws = 2000
    uniforms = ((torch.arange(draws) + 0.5) / draws)[:, None].expand(-1, 4)
    generated = decoder.decode(model, inputs_of(range(draws)), uniforms)
    counts = torch.bincount(torch.tensor(generated.codes).flatten(), minlength=4)
    expected = torch.softmax(torch.tensor(logits[:3]) / temperature, 0) * draws
    torch.testing.assert_close(counts[:3].float(), expected, rtol=0, atol=1.0)
    assert counts[3] == 0


def test_without_uniforms_the_global_generator_is_drawn_from() -> None:
    decoder, model = one_coefficient_decoder([0.0, 1.0, 2.0, 50.0], 1.0)
    draws = [decoder.decode(model, inputs_of(range(4000))).codes for _ in range(2)]
    assert draws[0] != draws[1]
    shares = torch.bincount(torch.tensor(draws[0]).flatten(), minlength=4) / 4000
    torch.testing.assert_close(
        shares[:3], torch.softmax(torch.tensor([0.0, 1.0, 2.0]), 0), rtol=0, atol=0.04
    )
    torch.manual_seed(5)
    first = decoder.decode(model, inputs_of(range(50))).codes
    torch.manual_seed(5)
    assert decoder.decode(model, inputs_of(range(50))).codes == first


@pytest.mark.parametrize("temperature", [1e-39, 1e-3, 1.0, 1e30])
@pytest.mark.parametrize("uniform", [0.0, 1 - 2.0**-24, 1.0])
def test_extreme_draws_stay_well_formed(temperature: float, uniform: float) -> None:
    fast = fast_tokenizer("foreign")
    _, model = network(random_table(seed=8, spread=30.0))
    noise = torch.full((30, 256), uniform)
    decoder = decoder_for(fast, temperature=temperature)
    check_well_formed(fast, decoder.decode(model, inputs_of(range(30)), noise))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_fail_their_row_only(bad: float, temperature: float) -> None:
    fast, rows, sound = fast_tokenizer("recorded"), range(6), random_table(seed=9)

    def broken(rows: Tensor, fed: list[Tensor]) -> Tensor:
        scores = sound(rows, fed).clone()
        if len(fed) == 7:
            scores[rows == 2] = bad
        return scores

    noise = torch.rand(6, 256, generator=torch.Generator().manual_seed(2))
    decoder = decoder_for(fast, temperature=temperature)
    healthy = decoder.decode(network(sound)[1], inputs_of(rows), noise)
    generated = decoder.decode(network(broken)[1], inputs_of(rows), noise)
    assert generated.failures == {2: "the network's logits are not finite"}
    assert generated.codes == [[] if r == 2 else codes for r, codes in enumerate(healthy.codes)]
    assert generated.text_ids[2] == healthy.text_ids[2][:6], "what was said until then, no end"
    fake, model = network(broken)
    assert set(decoder.decode(model, inputs_of([2, 2])).failures) == {0, 1}
    assert fake.steps == 3, "nobody waits for failed rows"


def test_what_a_complete_row_goes_on_to_say_does_not_count() -> None:
    fast, rows, sound = fast_tokenizer("recorded"), range(6), random_table(seed=9)
    decoder = decoder_for(fast)
    healthy = decoder.decode(network(sound)[1], inputs_of(rows))
    lengths = torch.tensor([len(codes) for codes in healthy.codes])

    def broken_after_the_end(rows: Tensor, fed: list[Tensor]) -> Tensor:
        scores = sound(rows, fed).clone()
        scores[len(fed) >= len((BOS, *PREFIX)) + lengths] = torch.nan
        return scores

    assert lengths.min() < lengths.max()
    assert decoder.decode(network(broken_after_the_end)[1], inputs_of(rows)) == healthy


@pytest.mark.parametrize(
    ("layout", "start", "causal_from", "plain_start"),
    [("lerobot", [BOS, *PREFIX], 1, ([BOS], 1)), ("openpi", PREFIX, 0, ([], 0))],
)
def test_the_prefix_is_part_of_the_prefill(
    layout: Any, start: list[int], causal_from: int, plain_start: tuple[list[int], int]
) -> None:
    fast = fast_tokenizer("recorded")
    fake, model = network(random_table(seed=10))
    decoder_for(fast, layout=layout).decode(model, inputs_of([0]))
    plain(fast, model, [0], layout=layout, max_steps=2)
    assert fake.prefills == [(start, causal_from), plain_start]


def test_reference_decoding_ends_when_every_row_has_said_the_end_marker() -> None:
    fast = fast_tokenizer("recorded")
    codes = favoured_codes(fast, 3)
    fake, model = network(favouring(fast, codes, bonus=1000.0))
    ids = plain(fast, model, range(3))
    longest = max(len(row) for row in codes) + 4
    assert fake.steps == longest - 1
    assert ids.shape == (3, 64)
    assert (ids[:, longest:] == 0).all()
    read = read_codes(ids, vocabulary_of(fast), check_prefix=True)
    assert read == Generated([vocabulary_of(fast).chunk_ids(row) for row in codes], codes, {})


@pytest.mark.parametrize("changes", [{"use_kv_cache": False}, {"temperature": 1e-3}])
def test_reference_decoding_otherwise_runs_all_steps(changes: dict[str, Any]) -> None:
    fast = fast_tokenizer("recorded")
    codes = favoured_codes(fast, 3)
    _, model = network(favouring(fast, codes, bonus=1000.0))
    ids = plain(fast, model, range(3), **changes)
    assert (ids != 0).float().mean() > 0.9
    assert read_codes(ids, vocabulary_of(fast), check_prefix=True).codes == codes


def test_reference_sampling_takes_the_rows_own_uniforms() -> None:
    fast = fast_tokenizer("recorded")
    _, model = network(random_table(seed=11))
    noise = torch.rand(3, 64, generator=torch.Generator().manual_seed(3))
    ids = plain(fast, model, range(3), temperature=1.0, noise=noise)
    alone = plain(fast, model, [1], temperature=1.0, noise=noise[1:2])
    assert torch.equal(ids[1], alone[0])
    first, logits = int(ids[1, 0]), random_table(11)(torch.tensor([1]), [torch.tensor([BOS])])
    probabilities = torch.softmax(logits[0], -1)
    below, up_to = probabilities[:first].sum(), probabilities[: first + 1].sum()
    assert below - 1e-6 <= noise[1, 0] <= up_to + 1e-6


def test_failed_rows_are_named_with_their_reason() -> None:
    fast = fast_tokenizer("recorded")
    vocabulary = vocabulary_of(fast)
    rows = [vocabulary.chunk_ids([1, 2]), [9, *PREFIX[1:], 3960, BAR, 0], [*PREFIX, 3960, 0, 0]]
    ids = torch.tensor([(row + [0] * 6)[:6] for row in rows])
    generated = read_codes(ids, vocabulary, check_prefix=True)
    assert generated.codes == [[1, 2], [], []]
    assert generated.text_ids == [rows[0], rows[1][:5], rows[2]]
    assert set(generated.failures) == {1, 2}
    assert "expected 'Action: '" in generated.failures[1]
    assert "no end marker" in generated.failures[2]
