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
from functools import partial

import torch
from torch import Tensor

from vlakit.policies.backbones.recorded import Recorded, Recordings
from vlakit.policies.pi0_fast.action_tokens import ActionVocabulary, TokenLayout
from vlakit.policies.pi0_fast.generated import Generated, draw_column
from vlakit.policies.pi0_fast.model import PI0FastModel
from vlakit.policies.pi0_fast.run import Run
from vlakit.policies.pi0_fast.sequence import Kept, PI0FastInputs, cut, keep_visible
from vlakit.policies.pi0_fast.speculation import DRAFTED, Speculation, drafts
from vlakit.policies.pi0_fast.token_automaton import TokenAutomaton

_MOST_BYTES = 4
"""Of a character in UTF-8, and so the most tokens of a coefficient."""
STEPS_PER_TRANSFER = 4
"""On an accelerator, steps between two looks at whether all rows are complete."""
PROMPT_MULTIPLE = 16
"""At fixed shapes, prompts are padded to a multiple of so many tokens."""
_NOT_FINITE = "the network's logits are not finite"


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
        speculation: Speculation = "off",
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
            speculation: where drafts come from; takes fixed shapes.
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
        self._speculation: Speculation = speculation
        self._drafted = 0 if speculation == "off" else DRAFTED

    @torch.no_grad()
    def decode(
        self,
        model: PI0FastModel,
        inputs: PI0FastInputs,
        noise: Tensor | None = None,
        recordings: Recordings[Run] | None = None,
        previous: Sequence[Sequence[int]] | None = None,
    ) -> Generated:
        """Generate one chunk per row.

        A row fails only when the network's logits are not finite.

        Args:
            model: the network.
            inputs: what it is asked.
            noise: (batch, at least max_steps) uniform in [0, 1), one per step, for a temperature
                above 0; None draws with torch.multinomial, at fixed shapes before the first step.
            recordings: compute at fixed shapes, recorded here; None lets them grow.
            previous: FAST ids of each row's last chunk, for drafts; they change no result.
        """
        if recordings is None:
            run = self._begin(model, inputs, noise, None, None)
            return self._finish(run, partial(self._advance, model, run), 1)
        kept = keep_visible(inputs.image_mask, inputs.prompt_mask, multiple=PROMPT_MULTIPLE)
        inputs = cut(inputs, kept)
        tensors = {field.name: getattr(inputs, field.name) for field in dataclasses.fields(inputs)}
        device, most = inputs.prompt_ids.device, self._automaton.max_steps
        if self._temperature > 0:
            drawn = torch.rand(len(inputs.images), most, device=device) if noise is None else noise
            tensors["noise"] = drawn
        if self._drafted:
            tensors["previous"] = self._columns(previous, len(inputs.images)).to(device)
        names, values = tuple(tensors), list(tensors.values())

        def begin(*values: Tensor) -> Run:
            given = dict(zip(names, values, strict=True))
            noise, previous = given.pop("noise", None), given.pop("previous", None)
            return self._begin(model, PI0FastInputs(**given), noise, kept, previous)

        def advance(run: Run) -> None:
            for _ in range(self._transfer_every):
                self._advance(model, run)

        def make() -> Recorded[Run]:
            return Recorded(begin, values, advance=advance, pool=recordings.pool)

        recorded = recordings.get(names, values, make)
        return self._finish(recorded.begin(*values), recorded.advance, self._transfer_every)

    def _columns(self, previous: Sequence[Sequence[int]] | None, batch: int) -> Tensor:
        """Return chunks as columns of the head, (batch, max_steps), -1 after each one's end."""
        columns = torch.full((batch, self._automaton.max_steps), -1)
        last = self._vocabulary.fast_vocab_size - 1
        if previous is not None and len(previous) == batch:
            for row, codes in enumerate(previous):
                columns[row, : len(codes)] = last - torch.tensor(codes, dtype=torch.long)
        return columns

    def _begin(
        self,
        model: PI0FastModel,
        inputs: PI0FastInputs,
        noise: Tensor | None,
        kept: Kept | None,
        previous: Tensor | None,
    ) -> Run:
        """Run the prefix and choose every row's first id."""
        batch = inputs.prompt_ids.shape[0]
        most = self._automaton.max_steps
        state = model.prefill(
            inputs,
            self._start_ids.expand(batch, -1),
            causal_from=self._causal_from,
            max_new_tokens=most - 1 + self._drafted,
            kept=kept,
        )
        run = Run.start(state, self._automaton.start(batch), most, noise, previous)
        self._pick(run, model.logits(state.hidden, self._head), None)
        return run

    def _advance(self, model: PI0FastModel, run: Run) -> None:
        """Feed the ids that were chosen and choose the next."""
        if run.previous is None:
            model.step(run.state, run.chosen + self._head.start)
            run.passes += ~run.has_ended
            self._pick(run, model.logits(run.state.hidden, self._head), None)
        else:
            self._advance_by_drafts(model, run)

    def _advance_by_drafts(self, model: PI0FastModel, run: Run) -> None:
        """Feed the ids that were chosen with a guess of those that follow.

        The guess is checked, not trusted: an id is chosen behind the last one and behind every
        guess that was right, from the logits that it has without any guess.
        """
        assert run.state.slots is not None
        guessed = drafts(run, self._speculation, self._drafted)  # (batch, drafted)
        fed = torch.cat((run.chosen[:, None], guessed.clamp(min=0)), dim=1) + self._head.start
        logits = model.logits(model.look_ahead(run.state, fed), self._head)
        goes_on = ~run.has_ended
        run.passes += goes_on
        for place in range(fed.shape[1]):
            run.state.slots += goes_on[:, None]
            self._pick(run, logits[:, place], goes_on)
            if place < self._drafted:
                goes_on = goes_on & (run.chosen == guessed[:, place]) & ~run.has_ended

    def _pick(self, run: Run, logits: Tensor, where: Tensor | None) -> None:
        """Choose an id for every row; all in place and on the device.

        Args:
            run: the chunks.
            logits: (batch, ids) of the head, behind each row's last id.
            where: (batch,) rows that get one; None for all.
        """
        automaton = self._automaton
        targets = automaton.targets(run.positions)
        # A row that has ended has no next token; what it takes from here on is not looked at.
        allowed = automaton.allowed(targets, run.step[:, None]) | run.has_ended[:, None]
        chosen, is_finite = self._choose(logits, allowed, run.uniforms())
        goes_on = ~run.has_ended if where is None else where & ~run.has_ended
        run.is_broken |= goes_on & ~is_finite
        run.has_ended |= run.is_broken
        goes_on = goes_on & is_finite
        moved = targets.gather(1, chosen[:, None]).squeeze(1)
        run.take(chosen, moved, goes_on)
        run.has_ended |= automaton.is_complete(run.positions)

    def _finish(self, run: Run, advance: Callable[[], None], steps_at_once: int) -> Generated:
        steps = 1
        while steps < self._automaton.max_steps:
            looks = (steps - 1) % self._transfer_every == 0
            if looks and bool(run.has_ended.all()):
                break
            advance()
            steps += steps_at_once
        return self._generated(run.columns.tolist(), run.is_broken.tolist(), run.passes.tolist())

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
            chosen = draw_column(torch.where(is_finite[:, None], likely, allowed.float()), uniforms)
        return chosen, is_finite

    def _generated(
        self, columns: list[list[int]], is_broken: list[bool], passes: list[int]
    ) -> Generated:
        last = self._vocabulary.fast_vocab_size - 1
        codes = [[last - column for column in row if column >= 0] for row in columns]
        text_ids = [self._vocabulary.chunk_ids(row) for row in codes]
        failures = {row: _NOT_FINITE for row, broken in enumerate(is_broken) if broken}
        for row in failures:
            codes[row], text_ids[row] = [], text_ids[row][:-1]
        return Generated(text_ids, codes, failures, passes)
