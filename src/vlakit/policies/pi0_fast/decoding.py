# SPDX-License-Identifier: Apache-2.0
"""From a network to the tokens of a chunk: constrained decoding, and LeRobot's.

Constrained: "Action: " is part of the prefill, of the head only the rows of action tokens are
computed, and of these only those may be chosen after which the chunk can still be completed
(`token_automaton`). So a row ends by itself when its chunk is complete. The end marker need not be
asked for: before that moment it would be wrong, at that moment nothing else would be right.

Where plain greedy decoding spells a chunk, constrained decoding gives the same tokens: each of its
choices was the largest of all logits, and is among the allowed ones because the rest of that very
chunk follows it within the steps left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vlakit.errors import ActionDecodeError
from vlakit.policies.backbones.recorded import Recorded, Recordings
from vlakit.policies.pi0_fast.action_tokens import ActionVocabulary, TokenLayout
from vlakit.policies.pi0_fast.model import Decoding, PI0FastModel
from vlakit.policies.pi0_fast.sequence import Kept, PI0FastInputs, cut, keep_visible
from vlakit.policies.pi0_fast.token_automaton import TokenAutomaton

_MOST_BYTES = 4
"""Of a character in UTF-8, and so the most tokens of a coefficient."""
STEPS_PER_TRANSFER = 4
"""On an accelerator, steps between two looks at whether all rows are complete."""
PROMPT_MULTIPLE = 16
"""At fixed shapes, prompts are padded to a multiple of so many tokens."""
_NOT_FINITE = "the network's logits are not finite"


@dataclass(frozen=True)
class Generated:
    """Tokens of a batch, row by row."""

    text_ids: list[list[int]]
    """As generated, with the tokens around the codes; nothing after the end marker."""
    codes: list[list[int]]
    """FAST ids; none in rows that failed."""
    failures: dict[int, str]
    """Row -> why it spells no chunk."""


@dataclass
class Run:
    """A batch of chunks that are being spelled; every tensor is changed in place."""

    state: Decoding
    positions: Tensor
    """(batch,) of the automaton."""
    has_ended: Tensor
    """(batch,) bool"""
    is_broken: Tensor
    """(batch,) bool, True where logits were not finite."""
    columns: Tensor
    """(batch, steps) columns of the head that were chosen; -1 after the end."""
    chosen: Tensor
    """(batch,) the last of them, or anything where the row has ended."""
    step: Tensor
    """(1,) how many were chosen."""
    noise: Tensor | None
    """(batch, steps or more) uniforms, for a temperature above 0."""


class ConstrainedDecoder:
    """Decoding that ends with exactly horizon * action_dim coefficients in every row."""

    def __init__(
        self,
        vocabulary: ActionVocabulary,
        token_bytes: Sequence[bytes],
        *,
        num_coefficients: int,
        max_steps: int,
        layout: TokenLayout,
        temperature: float,
        device: torch.device | str = "cpu",
    ) -> None:
        """Prepare the masks.

        Args:
            vocabulary: where the FAST ids stand in the head.
            token_bytes: what each FAST id spells.
            num_coefficients: horizon * action_dim.
            max_steps: most codes of a chunk (`max_decoding_steps`).
            layout: of the tokens before the codes.
            temperature: 0 takes the most likely token.
            device: where the network is.

        Raises:
            ConfigError: the tokens cannot spell that many coefficients, or not in so few steps.
        """
        # In the head's order, which is the reverse: ties then fall as they do in the full head.
        pieces = tuple(reversed(token_bytes))
        max_steps = min(max_steps, _MOST_BYTES * num_coefficients)
        self._automaton = TokenAutomaton(pieces, num_coefficients, max_steps, device)
        self._vocabulary, self._temperature = vocabulary, temperature
        rows = vocabulary.head_ids
        self._head = slice(rows.start, rows.stop)
        has_bos = layout == "lerobot"
        start_ids = [*([vocabulary.bos_id] if has_bos else []), *vocabulary.prefix_ids]
        self._start_ids = torch.tensor([start_ids], device=device)
        # Parity: at inference LeRobot's BOS belongs to the prompt, which sees it both ways.
        self._causal_from = int(has_bos)
        self._transfer_every = 1 if self._start_ids.device.type == "cpu" else STEPS_PER_TRANSFER
        blocks = -(-(max_steps - 1) // self._transfer_every)
        self._most_steps = 1 + blocks * self._transfer_every

    @torch.no_grad()
    def decode(
        self,
        model: PI0FastModel,
        inputs: PI0FastInputs,
        noise: Tensor | None = None,
        recordings: Recordings[Run] | None = None,
    ) -> Generated:
        """Generate one chunk per row.

        A row fails only when the network's logits are not finite.

        Args:
            model: the network.
            inputs: what it is asked.
            noise: (batch, at least max_steps) uniform in [0, 1), one per step, for a temperature
                above 0; None draws with torch.multinomial, at fixed shapes before the first step.
            recordings: compute at fixed shapes, recorded here; None lets them grow.
        """
        if recordings is None:
            return self._finish(*self._begin_growing(model, inputs, noise))
        kept = keep_visible(inputs.image_mask, inputs.prompt_mask, multiple=PROMPT_MULTIPLE)
        inputs = cut(inputs, kept)
        if self._temperature > 0 and noise is None:
            noise = torch.rand(len(inputs.images), self._most_steps, device=inputs.images.device)
        tensors = [getattr(inputs, field.name) for field in dataclasses.fields(inputs)]
        tensors += [] if noise is None else [noise]

        def begin(*tensors: Tensor) -> Run:
            drawn = tensors[4] if len(tensors) > 4 else None
            return self._begin(model, PI0FastInputs(*tensors[:4]), drawn, kept)

        def advance(run: Run) -> None:
            for _ in range(self._transfer_every):
                self._advance(model, run)

        def make() -> Recorded[Run]:
            return Recorded(begin, tensors, advance=advance, pool=recordings.pool)

        recorded = recordings.get(len(kept.cameras), tensors, make)
        return self._finish(recorded.begin(*tensors), recorded.advance, self._transfer_every)

    def _begin_growing(
        self, model: PI0FastModel, inputs: PI0FastInputs, noise: Tensor | None
    ) -> tuple[Run, Callable[[], None], int]:
        run = self._begin(model, inputs, noise, None)
        return run, partial(self._advance, model, run), 1

    def _begin(
        self, model: PI0FastModel, inputs: PI0FastInputs, noise: Tensor | None, kept: Kept | None
    ) -> Run:
        """Run the prefix and choose every row's first id."""
        batch, device = inputs.prompt_ids.shape[0], inputs.prompt_ids.device
        state = model.prefill(
            inputs,
            self._start_ids.expand(batch, -1),
            causal_from=self._causal_from,
            max_new_tokens=self._most_steps - 1,
            kept=kept,
        )
        run = Run(
            state=state,
            positions=self._automaton.start(batch),
            has_ended=torch.zeros(batch, dtype=torch.bool, device=device),
            is_broken=torch.zeros(batch, dtype=torch.bool, device=device),
            columns=torch.full((batch, self._most_steps), -1, device=device),
            chosen=torch.zeros(batch, dtype=torch.long, device=device),
            step=torch.zeros(1, dtype=torch.long, device=device),
            noise=noise,
        )
        self._pick(model, run)
        return run

    def _advance(self, model: PI0FastModel, run: Run) -> None:
        """Feed the ids that were chosen and choose the next."""
        model.step(run.state, run.chosen + self._head.start)
        self._pick(model, run)

    def _pick(self, model: PI0FastModel, run: Run) -> None:
        """Choose an id for every row; all in place and on the device."""
        automaton = self._automaton
        targets = automaton.targets(run.positions)
        # A row that has ended has no next token; what it takes from here on is not looked at.
        allowed = automaton.allowed(targets, run.step) | run.has_ended[:, None]
        logits = model.logits(run.state.hidden, self._head)
        uniforms = None if run.noise is None else _at(run.noise, run.step)
        chosen, is_finite = self._choose(logits, allowed, uniforms)
        run.is_broken |= ~(is_finite | run.has_ended)
        run.has_ended |= run.is_broken
        kept = torch.where(run.has_ended, -1, chosen)
        run.columns.index_copy_(1, run.step, kept[:, None])
        moved = targets.gather(1, chosen[:, None]).squeeze(1)
        run.positions.copy_(torch.where(run.has_ended, run.positions, moved))
        run.has_ended |= automaton.is_complete(run.positions)
        run.chosen.copy_(chosen)
        run.step += 1

    def _finish(self, run: Run, advance: Callable[[], None], steps_at_once: int) -> Generated:
        steps = 1
        while steps < self._automaton.max_steps:
            looks = (steps - 1) % self._transfer_every == 0
            if looks and bool(run.has_ended.all()):
                break
            advance()
            steps += steps_at_once
        columns = run.columns[:, : self._automaton.max_steps]
        return self._generated(columns.tolist(), run.is_broken.tolist())

    def _choose(
        self, logits: Tensor, allowed: Tensor, uniforms: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return an allowed column for every row, and which rows had finite logits, both (batch,).

        The others still get a column that exists, so that they do not stop the whole batch.
        """
        scores = logits.float().masked_fill(~allowed, -torch.inf)
        best, chosen = scores.max(-1)
        is_finite = best.isfinite()
        if self._temperature > 0:
            likely = torch.softmax((scores - best[:, None]) / self._temperature, -1)
            chosen = _sample(torch.where(is_finite[:, None], likely, allowed.float()), uniforms)
        return chosen, is_finite

    def _generated(self, columns: list[list[int]], is_broken: list[bool]) -> Generated:
        last = self._vocabulary.fast_vocab_size - 1
        codes = [[last - column for column in row if column >= 0] for row in columns]
        text_ids = [self._vocabulary.chunk_ids(row) for row in codes]
        failures = {row: _NOT_FINITE for row, broken in enumerate(is_broken) if broken}
        for row in failures:
            codes[row], text_ids[row] = [], text_ids[row][:-1]
        return Generated(text_ids, codes, failures)


@torch.no_grad()
def decode_as_reference(
    model: PI0FastModel,
    inputs: PI0FastInputs,
    vocabulary: ActionVocabulary,
    *,
    max_steps: int,
    layout: TokenLayout,
    temperature: float,
    use_kv_cache: bool,
    noise: Tensor | None = None,
) -> Tensor:
    """Generate as LeRobot 0.6.1 does: any token may come, the prefix is decoded too.

    Parity: with a cache and temperature 0 it ends when every row has said "|"; in every other case
    it runs all steps, so that a seeded generator is left as the reference leaves it. Rows that have
    said "|" go on until the end.

    Args:
        model: the network.
        inputs: what it is asked.
        vocabulary: for BOS and the end marker.
        max_steps: most tokens (`max_decoding_steps`).
        layout: `lerobot` puts a BOS after the prompt, as a part of it.
        temperature: 0 takes the most likely token.
        use_kv_cache: False computes everything anew for each token.
        noise: (batch, at least max_steps) uniform in [0, 1), one per step, for a temperature
            above 0; None draws with torch.multinomial.

    Returns:
        (batch, max_steps) text ids, zeros after the end.
    """
    prefix, batch = model.embed_prefix(inputs), inputs.prompt_ids.shape[0]
    ids = inputs.prompt_ids.new_zeros(batch, max_steps)
    start = ids.new_full((batch, int(layout == "lerobot")), vocabulary.bos_id)
    prompted = start.shape[1]
    has_ended = torch.zeros_like(ids[:, 0], dtype=torch.bool)
    state = model.prefill(prefix, start, causal_from=prompted, max_new_tokens=max_steps - 1)
    for step in range(max_steps):
        if step and use_kv_cache:
            model.step(state, ids[:, step - 1])
        elif step:
            fed = torch.cat((start, ids[:, :step]), dim=1)
            state = model.prefill(prefix, fed, causal_from=prompted, max_new_tokens=0)
        logits = model.logits(state.hidden)
        if temperature > 0:
            ids[:, step] = _sample(torch.softmax(logits / temperature, -1), _column(noise, step))
            continue
        ids[:, step] = logits.argmax(-1)
        has_ended |= ids[:, step] == vocabulary.bar_id
        if use_kv_cache and bool(has_ended.all()):
            break
    return ids


def read_codes(ids: Tensor, vocabulary: ActionVocabulary, *, check_prefix: bool) -> Generated:
    """Return the codes in generated text ids, (batch, steps), and why rows have none."""
    generated = Generated([], [], {})
    for row, text_ids in enumerate(ids.tolist()):
        end = text_ids.index(vocabulary.bar_id) + 1 if vocabulary.bar_id in text_ids else None
        generated.text_ids.append(text_ids[:end])
        try:
            generated.codes.append(vocabulary.codes(text_ids, check_prefix=check_prefix))
        except ActionDecodeError as reason:
            generated.codes.append([])
            generated.failures[row] = str(reason)
    return generated


def _at(noise: Tensor, step: Tensor) -> Tensor:
    """Return the uniforms of a step, (batch,); the last ones beyond the end."""
    return noise.index_select(1, step.clamp(max=noise.shape[1] - 1)).squeeze(1)


def _column(noise: Tensor | None, step: int) -> Tensor | None:
    return None if noise is None else noise[:, step]


def _sample(probabilities: Tensor, uniforms: Tensor | None) -> Tensor:
    """Draw one column per row, (batch,), from probabilities (batch, columns).

    With uniforms, (batch,), a row's draw is the inverse of its cumulative distribution there, and
    so does not depend on the rows beside it.
    """
    if uniforms is None:
        return torch.multinomial(probabilities, 1).squeeze(1)
    cumulative = probabilities.float().cumsum(-1)
    is_beyond = cumulative > (uniforms * cumulative[:, -1])[:, None]
    # Sums made in parallel need not rise evenly: a column of probability 0 could seem to be hit, or
    # none at all.
    is_hit = is_beyond & (probabilities > 0)
    return torch.where(is_hit.any(-1), is_hit.int().argmax(-1), probabilities.argmax(-1))
