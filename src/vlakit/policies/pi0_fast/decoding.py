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

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlakit.errors import ActionDecodeError
from vlakit.policies.pi0_fast.action_tokens import ActionVocabulary, TokenLayout
from vlakit.policies.pi0_fast.model import PI0FastModel
from vlakit.policies.pi0_fast.sequence import PI0FastInputs
from vlakit.policies.pi0_fast.token_automaton import TokenAutomaton

_MOST_BYTES = 4
"""Of a character in UTF-8, and so the most tokens of a coefficient."""
_STEPS_PER_TRANSFER = 8
"""On an accelerator, steps between two looks at whether all rows are complete."""
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
        self._transfer_every = 1 if self._start_ids.device.type == "cpu" else _STEPS_PER_TRANSFER

    @torch.no_grad()
    def decode(
        self, model: PI0FastModel, inputs: PI0FastInputs, noise: Tensor | None = None
    ) -> Generated:
        """Generate one chunk per row.

        A row fails only when the network's logits are not finite.

        Args:
            model: the network.
            inputs: what it is asked.
            noise: (batch, at least max_steps) uniform in [0, 1), one per step, for a temperature
                above 0; None draws with torch.multinomial.
        """
        automaton, batch = self._automaton, inputs.prompt_ids.shape[0]
        state = model.prefill(
            inputs,
            self._start_ids.expand(batch, -1),
            causal_from=self._causal_from,
            max_new_tokens=automaton.max_steps - 1,
        )
        positions = automaton.start(batch)
        has_ended = torch.zeros_like(positions, dtype=torch.bool)
        is_broken = torch.zeros_like(has_ended)
        columns = torch.full((batch, automaton.max_steps), -1, device=positions.device)
        for step in range(automaton.max_steps):
            targets = automaton.targets(positions)
            # A row that has ended has no next token; what it takes from here on is not looked at.
            allowed = automaton.allowed(targets, step) | has_ended[:, None]
            logits = model.logits(state.hidden, self._head)
            chosen, is_finite = self._choose(logits, allowed, _column(noise, step))
            is_broken |= ~(is_finite | has_ended)
            has_ended |= is_broken
            columns[:, step] = torch.where(has_ended, -1, chosen)
            moved = targets.gather(1, chosen[:, None]).squeeze(1)
            positions = torch.where(has_ended, positions, moved)
            has_ended |= automaton.is_complete(positions)
            if self._is_over(has_ended, step + 1):
                break
            model.step(state, chosen + self._head.start)
        return self._generated(columns.tolist(), is_broken.tolist())

    def _is_over(self, has_ended: Tensor, steps: int) -> bool:
        if steps == self._automaton.max_steps:
            return True
        return steps % self._transfer_every == 0 and bool(has_ended.all())

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
