# SPDX-License-Identifier: Apache-2.0
"""The pi0-FAST network: a PaliGemma that continues images and a prompt with action tokens.

Training runs the whole sequence once and computes logits only where a token is to be predicted.
Inference runs the prefix once, into a cache of fixed size, and then one token per row and step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlakit.errors import ConfigError
from vlakit.policies.backbones.attention import as_bias
from vlakit.policies.backbones.gemma import Span
from vlakit.policies.backbones.kv_cache import KVCache
from vlakit.policies.backbones.layers import take_columns
from vlakit.policies.backbones.paligemma import PaliGemma
from vlakit.policies.backbones.paligemma_config import PaliGemmaSizes
from vlakit.policies.pi0_fast.config import PI0FastConfig
from vlakit.policies.pi0_fast.language_loss import head_cross_entropy
from vlakit.policies.pi0_fast.sequence import (
    Kept,
    PI0FastInputs,
    Prefix,
    cut,
    keep_visible,
    last_column,
    last_real_column,
    prefix_spans,
    token_positions,
    wanted_columns,
)


@dataclass
class Decoding:
    """A batch of sequences that grow by one token per step."""

    hidden: Tensor
    """(batch, width) of each row's last token, after the final norm."""
    cache: KVCache
    is_real: Tensor | None
    """(batch, capacity) bool, which slots may be looked at; None where all may."""
    angles: tuple[Tensor, Tensor]
    """Cosines and sines of the tokens to come, each (batch, max_new_tokens, head_dim)."""
    first: int
    """Slot of the first token to come."""
    steps: int = 0
    """Tokens that were fed, where the host counts them."""
    slots: Tensor | None = None
    """(batch, 1) slot of each row's next token, where the device does: at fixed shapes."""


class PaliGemmaHolder(nn.Module):
    """The level of LeRobot's names that would also hold an action expert."""

    def __init__(self, sizes: PaliGemmaSizes) -> None:
        super().__init__()
        self.paligemma = PaliGemma(sizes)


class PI0FastModel(nn.Module):
    """The network. Parameter names and their order are LeRobot's."""

    def __init__(self, config: PI0FastConfig, sizes: PaliGemmaSizes, dtype: torch.dtype) -> None:
        super().__init__()
        side = sizes.vision.image_size
        if tuple(config.image_resolution) != (side, side):
            raise ConfigError(
                f"--policy.image_resolution={list(config.image_resolution)} does not fit the "
                f"vision tower, which takes images of [{side}, {side}]. Give that resolution, or "
                "another vision_config.image_size in --policy.paligemma_config."
            )
        self.paligemma_with_expert = PaliGemmaHolder(sizes)
        self.paligemma.store_in(dtype)
        self.paligemma.set_recompute(config.recompute)
        self.config, self.sizes = config, sizes

    @property
    def paligemma(self) -> PaliGemma:
        """The whole network, without the levels that only name it."""
        return self.paligemma_with_expert.paligemma

    def init_weights(self) -> None:
        """Draw fresh weights from torch's global generator."""
        self.paligemma.init_weights()

    def compile_blocks(self, mode: str) -> None:
        """Compile all layers with torch.compile, at their first use; see `compile_block`.

        Args:
            mode: torch.compile's, such as `default` or `max-autotune`.
        """
        self.paligemma.compile_blocks(mode)

    def loss(self, inputs: PI0FastInputs, action_ids: Tensor, action_mask: Tensor) -> Tensor:
        """Return the cross entropy of the action tokens, a float32 scalar.

        With the layout `lerobot` every token after the first is a target and the mean is over all
        tokens of the batch; with `openpi` the first is one too, predicted by the prompt's last
        token, and the mean is over each row's tokens, then over rows.

        Args:
            inputs: the batch.
            action_ids: (batch, tokens) int64, padded on the right.
            action_mask: (batch, tokens) bool, True at real tokens.
        """
        on_host = action_mask.bool().cpu()
        longest = last_column(on_host)
        ids, is_counted = action_ids[:, :longest], on_host[:, :longest].to(action_ids.device)
        prefix, suffix = self._embed(inputs, ids[:, :-1])  # nothing follows the last token
        is_real = torch.cat((prefix.is_real, is_counted[:, :-1]), dim=1)
        columns = torch.arange(prefix.length, is_real.shape[1], device=ids.device)
        columns = columns.expand(ids.shape[0], -1)
        if self.config.token_layout == "openpi":
            columns = torch.cat((last_real_column(prefix.is_real), columns), dim=1)
            weights = is_counted / is_counted.sum(1, keepdim=True).clamp(min=1) / ids.shape[0]
        else:
            ids, is_counted = ids[:, 1:], is_counted[:, 1:]
            weights = is_counted / is_counted.sum().clamp(min=1)
        hidden = self._hidden(prefix, suffix, is_real, prefix.length, columns)
        rows = is_counted.flatten().nonzero().squeeze(1)
        return head_cross_entropy(
            hidden.flatten(0, 1)[rows],
            self.paligemma.lm_head.weight,
            ids.flatten()[rows],
            weights.flatten()[rows],
        )

    @torch.no_grad()
    def prefill(
        self,
        inputs: PI0FastInputs | Prefix,
        start_ids: Tensor,
        *,
        causal_from: int,
        max_new_tokens: int,
        kept: Kept | None = None,
    ) -> Decoding:
        """Run images, prompts and the tokens that a continuation starts with.

        Args:
            inputs: the batch, embedded or not.
            start_ids: (batch, n) int64, the same number for every row; n may be 0.
            causal_from: tokens of `start_ids` before this index belong to the prompt, which sees
                all of itself; those from it on see only what is not later.
            max_new_tokens: most tokens that are added.
            kept: what the inputs were cut to. With it shapes are fixed: the host is told nothing,
                and learns nothing, that depends on the values of the inputs.
        """
        prefix, start = self._embed(inputs, start_ids, kept)
        batch, length = start.shape[0], prefix.length + start.shape[1]
        language_model, is_fixed = self.paligemma.language_model, kept is not None
        # Attention with a mask wants a number of keys that can be divided by 8.
        unused = -(length + max_new_tokens) % 8 if is_fixed else 0
        added = prefix.is_real.new_ones(batch, start.shape[1] + max_new_tokens + unused)
        is_real = torch.cat((prefix.is_real, added), dim=1)  # (batch, capacity)
        cosines, sines = language_model.rotary(token_positions(is_real))
        cache = language_model.new_cache(batch, is_real.shape[1], uses_joined=is_fixed)
        if start.shape[1]:
            columns = torch.full((batch, 1), length - 1, device=start.device)
        else:
            columns = last_real_column(prefix.is_real)
        hidden = self._hidden(
            prefix, start, is_real[:, :length], prefix.length + causal_from, columns, cache
        )
        cache.start = length
        return Decoding(
            hidden=hidden[:, 0],
            cache=cache,
            is_real=None if prefix.is_full else is_real,
            angles=(cosines[:, length:], sines[:, length:]),
            first=length,
            slots=torch.full((batch, 1), length, device=start.device) if is_fixed else None,
        )

    @torch.no_grad()
    def step(self, decoding: Decoding, ids: Tensor) -> None:
        """Append one token to every row. Nothing is read back from the device.

        Args:
            decoding: updated in place.
            ids: (batch,) int64; anything for rows that are finished.
        """
        if decoding.slots is not None:
            decoding.hidden.copy_(self.look_ahead(decoding, ids[:, None])[:, 0])
            decoding.slots += 1
            return
        index, keys = decoding.steps, decoding.cache.start + 1
        cosines, sines = (part[:, index : index + 1] for part in decoding.angles)
        if not cosines.shape[1]:
            raise ValueError(
                f"all {index} steps are used up; expected no more than prefill's max_new_tokens"
            )
        seen = None if decoding.is_real is None else decoding.is_real[:, None, None, :keys]
        language_model = self.paligemma.language_model
        hidden = language_model(
            language_model.embed(ids)[:, None],
            (cosines, sines),
            [Span(1, keys, seen)],
            cache=decoding.cache,
        )
        decoding.hidden = hidden[:, 0]
        decoding.cache.start, decoding.steps = keys, index + 1

    @torch.no_grad()
    def look_ahead(self, decoding: Decoding, ids: Tensor) -> Tensor:
        """Return the hidden states of tokens that come next, (batch, n, width).

        Their keys and values are stored, but the rows do not grow: tokens that turn out wrong are
        overwritten by those that come in their place.

        Args:
            decoding: with slots counted on the device.
            ids: (batch, n) int64.
        """
        assert decoding.slots is not None
        cache, language_model = decoding.cache, self.paligemma.language_model
        slots = decoding.slots + torch.arange(ids.shape[1], device=ids.device)  # (batch, n)
        seen = torch.arange(cache.length, device=ids.device) <= slots[..., None]
        if decoding.is_real is not None:
            seen &= decoding.is_real[:, None]
        # Rows that have ended may go beyond the table; what they compute is not looked at.
        columns = (slots - decoding.first).clamp(max=decoding.angles[0].shape[1] - 1)
        cosines, sines = (take_columns(part, columns) for part in decoding.angles)
        cache.slots = slots.clamp(max=cache.length - 1)
        span = Span(ids.shape[1], cache.length, as_bias(seen[:, None]))
        return language_model(language_model.embed(ids), (cosines, sines), [span], cache=cache)

    def join_weights(self) -> None:
        """Lay out the language model's weights for inference at fixed shapes."""
        self.paligemma.language_model.join_weights()

    def logits(self, hidden: Tensor, rows: Tensor | slice | None = None) -> Tensor:
        """Return the head's logits in the storage type.

        Args:
            hidden: (..., width), after the final norm.
            rows: the n ids whose logits are wanted; None for all. A slice of ids copies no weights.

        Returns:
            (..., n or vocabulary).
        """
        weight = self.paligemma.lm_head.weight
        return F.linear(hidden, weight if rows is None else weight[rows])

    @torch.no_grad()
    def embed_prefix(self, inputs: PI0FastInputs) -> Prefix:
        """Embed images and prompts, for several calls with the same inputs."""
        return self._embed(inputs, inputs.prompt_ids[:, :0])[0]

    def _embed(
        self, inputs: PI0FastInputs | Prefix, ids: Tensor, kept: Kept | None = None
    ) -> tuple[Prefix, Tensor]:
        """Return the prefix and the embeddings of ids, (batch, n) -> (batch, n, width)."""
        language_model = self.paligemma.language_model
        if isinstance(inputs, Prefix):
            return inputs, language_model.embed(ids)
        if kept is None:
            kept = keep_visible(inputs.image_mask, inputs.prompt_mask)
            inputs = cut(inputs, kept)
        # One look-up for all tokens: each would give a gradient as large as the table.
        text = language_model.embed(torch.cat((inputs.prompt_ids, ids), dim=1))
        images = self._embed_images(inputs.images).to(text.dtype)
        per_image = self.sizes.vision.num_patches
        seen = inputs.image_mask.bool().repeat_interleave(per_image, dim=1)
        prefix = Prefix(
            embeddings=torch.cat((images, text[:, : kept.prompt]), dim=1),
            is_real=torch.cat((seen, inputs.prompt_mask.bool()), dim=1),
            is_full=kept.is_full,
        )
        return prefix, text[:, kept.prompt :]

    def _embed_images(self, images: Tensor) -> Tensor:
        """Return (batch, cameras * patches, width) from (batch, cameras, 3, side, side)."""
        if not images.shape[1]:
            return images.new_zeros(images.shape[0], 0, self.sizes.text.hidden_size)
        embedded = self.paligemma.embed_images(images.flatten(0, 1))
        return embedded.unflatten(0, images.shape[:2]).flatten(1, 2)

    def _hidden(
        self,
        prefix: Prefix,
        suffix: Tensor,
        is_real: Tensor,
        both_ways: int,
        columns: Tensor,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Return the hidden states of some columns, (batch, n, width).

        Args:
            prefix: what the sequences begin with.
            suffix: (batch, m, width) embeddings that follow.
            is_real: (batch, length) of both together.
            both_ways: number of leading tokens that see one another both ways.
            columns: (batch, n), in order.
            cache: where keys and values go.
        """
        language_model = self.paligemma.language_model
        return language_model(
            torch.cat((prefix.embeddings, suffix), dim=1),
            language_model.rotary(token_positions(is_real)),
            prefix_spans(is_real, both_ways, prefix_is_full=prefix.is_full),
            cache=cache,
            wanted=wanted_columns(is_real, both_ways, columns),
        )
