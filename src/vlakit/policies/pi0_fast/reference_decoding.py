# SPDX-License-Identifier: Apache-2.0
"""Decoding as LeRobot 0.6.1 does it, which may end in tokens that spell no chunk."""

from __future__ import annotations

import torch
from torch import Tensor

from vlakit.errors import ActionDecodeError
from vlakit.policies.pi0_fast.action_tokens import ActionVocabulary, TokenLayout
from vlakit.policies.pi0_fast.generated import Generated, draw_column
from vlakit.policies.pi0_fast.model import PI0FastModel
from vlakit.policies.pi0_fast.sequence import PI0FastInputs


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
            ids[:, step] = draw_column(
                torch.softmax(logits / temperature, -1), _column(noise, step)
            )
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
