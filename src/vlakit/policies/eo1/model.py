# SPDX-License-Identifier: Apache-2.0
"""The EO-1 network: a Qwen2.5-VL that reads state and noisy actions as tokens of its sequence.

    <prompt: images, state token, instruction> <action_start> a_1 ... a_h <action_end> ...
     `------------------- prefix -----------------------'     `- suffix -'

The state replaces the embedding of its token, each noisy action (joined with its time) that of one
action token. Attention is causal throughout, also inside the chunk, so the prefix is computed once
per chunk and only the suffix is run again at every denoising step. The velocity is read at the
action tokens. What follows the last action cannot reach it and is never computed.
"""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlakit.policies.backbones.attention import AttentionKind
from vlakit.policies.backbones.layers import activation
from vlakit.policies.backbones.qwen2_5_vl import Qwen25VL
from vlakit.policies.backbones.qwen2_5_vl_config import Qwen25VLSizes
from vlakit.policies.backbones.qwen2_5_vl_positions import multimodal_positions
from vlakit.policies.eo1.config import EO1Config
from vlakit.policies.eo1.flow_matching import (
    embed_time,
    interpolate,
    velocity_loss,
)
from vlakit.policies.eo1.layout import action_error, check_images, state_columns
from vlakit.policies.eo1.packing import plan_packing


@dataclass(frozen=True)
class EO1Inputs:
    """A tokenised batch."""

    input_ids: Tensor
    """(batch, length)"""
    attention_mask: Tensor
    """(batch, length), nonzero at real tokens."""
    pixel_values: Tensor
    """(patches of all images, patch_dim)"""
    image_grid_thw: Tensor
    """(images, 3) frames, patch rows and patch columns."""
    state: Tensor
    """(batch, max_state_dim), normalised and padded."""
    state_token_id: int
    action_token_id: int


class EO1Model(nn.Module):
    """Backbone and flow head. Parameter names and their order are LeRobot's."""

    def __init__(self, config: EO1Config, sizes: Qwen25VLSizes, dtype: torch.dtype) -> None:
        super().__init__()
        kind: AttentionKind = config.attn_implementation or "sdpa"
        width = sizes.text.hidden_size
        self.vlm_backbone = Qwen25VL(sizes, kind).to(dtype)
        self.state_proj = nn.Linear(config.max_state_dim, width)
        self.action_in_proj = nn.Linear(config.max_action_dim, width)
        self.action_out_proj = _output_projection(config, width)
        self.action_time_mlp_in = nn.Linear(2 * width, width)
        self.action_time_mlp_out = nn.Linear(width, width)
        self.vlm_backbone.tie_weights()
        self.vlm_backbone.set_recompute(config.recompute)
        self.config, self.sizes = config, sizes

    def join_weights(self) -> None:
        """Lay out the language model's weights for inference at fixed shapes."""
        self.vlm_backbone.model.language_model.join_weights()

    def init_weights(self) -> None:
        """Draw fresh weights from torch's global generator."""
        self.vlm_backbone.init_weights()
        self.init_head()

    def init_head(self, device: torch.device | None = None) -> None:
        """Draw fresh weights for everything that is not in a Qwen2.5-VL checkpoint.

        Args:
            device: where to allocate the weights first, for a model on the meta device.
        """
        for name, module in self.named_modules():
            if isinstance(module, (nn.Linear, nn.PReLU)) and not name.startswith("vlm_backbone."):
                if device is not None:
                    module.to_empty(device=device)
                module.reset_parameters()

    def loss(
        self,
        inputs: EO1Inputs,
        action: Tensor,
        noise: Tensor,
        time: Tensor,
        action_is_pad: Tensor | None,
    ) -> Tensor:
        """Return the flow-matching loss, a float32 scalar.

        Args:
            inputs: the batch, padded on the right.
            action: (batch, horizon, max_action_dim), normalised and padded.
            noise: like action.
            time: (batch,).
            action_is_pad: (batch, horizon), True after the end of the episode; None when all real.
        """
        x_t, u_t = interpolate(action, noise, time)
        inputs, is_counted = _index_on_host(inputs, action_is_pad)
        columns, is_real = self._action_columns(inputs), inputs.attention_mask
        if is_counted is not None and not self.config.supervise_padding_actions:
            is_real = is_real.scatter(1, columns, is_counted.to(is_real.dtype))
            is_counted = is_counted.to(action.device)
        else:
            is_counted = None
        v_t = self.velocity(inputs, x_t, time, columns, is_real)
        if not self.config.supervise_padding_action_dims:
            v_t, u_t = v_t[..., : self.config.action_dim], u_t[..., : self.config.action_dim]
        return velocity_loss(v_t, u_t, is_counted)

    def velocity(
        self, inputs: EO1Inputs, x_t: Tensor, time: Tensor, columns: Tensor, is_real: Tensor
    ) -> Tensor:
        """Return the predicted velocity by one pass over the whole sequence.

        Where things stand is worked out where `inputs.input_ids`, `columns` and `is_real` are: on
        the host nothing waits for the device.

        Args:
            inputs: the batch, padded on either side.
            x_t: (batch, horizon, max_action_dim) noisy actions.
            time: (batch,).
            columns: (batch, horizon), where the action tokens are.
            is_real: (batch, length), nonzero at tokens that may be looked at; the velocity at
                others is undefined.

        Returns:
            (batch, horizon, max_action_dim), in the flow head's type.
        """
        end, device = int(columns.max()) + 1, x_t.device
        positions = self._positions(inputs, is_real)[:, :, :end].to(device)
        embeddings = place(
            self._embed_prefix(inputs, end),
            columns.to(device),
            self.embed_suffix(x_t, self.embed_times(time)),
        )
        return self.read_velocity(self._hidden(embeddings, positions, is_real[:, :end], columns))

    def _hidden(
        self, embeddings: Tensor, positions: Tensor, is_real: Tensor, columns: Tensor
    ) -> Tensor:
        """Return the hidden states of the action tokens, (batch, horizon, width)."""
        language_model, device = self.vlm_backbone.model.language_model, embeddings.device
        if not self.config.pack_sequences:
            visible = _unless_invisible(is_real, columns)
            visible = None if visible is None else visible.to(device)
            return language_model(embeddings, positions, is_real=visible, wanted=columns.to(device))
        packing = plan_packing(is_real, columns).to(device)
        hidden = language_model(
            packing.pack(embeddings),
            packing.pack_positions(positions),
            wanted=packing.columns,
            segments=packing.segments,
        )
        return packing.unpack_actions(hidden)

    def _action_columns(self, inputs: EO1Inputs) -> Tensor:
        """Return the column of every action token, (batch, horizon)."""
        is_action = inputs.input_ids == inputs.action_token_id
        horizon = self.config.chunk_size
        first = is_action.int().argmax(dim=1, keepdim=True)  # (batch, 1)
        columns = first + torch.arange(horizon, device=first.device)
        fits = (
            bool((is_action.sum(dim=1) == horizon).all())
            and int(columns.max()) < (is_action.shape[1])
        )
        if not fits or not bool(is_action.gather(1, columns).all()):
            counts = sorted(set(is_action.sum(dim=1).tolist()))
            raise action_error(counts, inputs.action_token_id, horizon)
        return columns

    def _positions(self, inputs: EO1Inputs, is_real: Tensor) -> Tensor:
        merge = self.sizes.vision.spatial_merge_size
        grids = [
            (rows // merge, columns // merge) for _, rows, columns in inputs.image_grid_thw.tolist()
        ]
        is_image = inputs.input_ids == self.sizes.image_token_id
        check_images(is_image, sum(rows * columns for rows, columns in grids))
        return multimodal_positions(is_image, is_real, grids)

    def _embed_prefix(self, inputs: EO1Inputs, end: int) -> Tensor:
        """Return embeddings of the first `end` tokens, with images and state in place."""
        ids, device = inputs.input_ids[:, :end], inputs.pixel_values.device
        embeddings = self.vlm_backbone.model.language_model.embed_tokens(ids.to(device))
        images = self.vlm_backbone.embed_images(inputs.pixel_values, inputs.image_grid_thw)
        embeddings = _fill(embeddings, ids == self.sizes.image_token_id, images)
        columns = state_columns(ids == inputs.state_token_id, inputs.state_token_id)
        return place(embeddings, columns.to(device), self.embed_state(inputs.state))

    def embed_state(self, state: Tensor) -> Tensor:
        """Return (batch, 1, width) from (batch, max_state_dim)."""
        with self._head_precision(state.device):
            return self.state_proj(state.to(self.state_proj.weight.dtype))[:, None]

    def embed_times(self, time: Tensor) -> Tensor:
        """Return (n, width) from n times, in the head's type."""
        return embed_time(
            time,
            self.action_in_proj.out_features,
            min_period=self.config.min_period,
            max_period=self.config.max_period,
        ).to(self.action_in_proj.weight.dtype)

    def embed_suffix(self, x_t: Tensor, embedded: Tensor) -> Tensor:
        """Return one token per noisy action, (batch, horizon, width), in the head's type.

        Args:
            x_t: (batch, horizon, max_action_dim) noisy actions.
            embedded: (batch, width) times, or (width,) where all rows have the same.
        """
        dtype = self.action_in_proj.weight.dtype
        with self._head_precision(x_t.device):
            action = self.action_in_proj(x_t.to(dtype))
            joined = torch.cat((action, embedded.unsqueeze(-2).expand_as(action)), dim=-1)
            return self.action_time_mlp_out(F.silu(self.action_time_mlp_in(joined)))

    def read_velocity(self, hidden: Tensor) -> Tensor:
        """Return (batch, horizon, max_action_dim) from hidden states of the action tokens."""
        with self._head_precision(hidden.device):
            return self.action_out_proj(hidden.to(self.state_proj.weight.dtype))

    def _head_precision(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context in which the flow head computes."""
        if self.config.force_fp32_autocast:
            return torch.autocast(device.type, enabled=False)
        return nullcontext()


def _index_on_host(
    inputs: EO1Inputs, action_is_pad: Tensor | None
) -> tuple[EO1Inputs, Tensor | None]:
    """Return a batch whose ids, mask and grids are on the host, and which actions are real.

    All of them are fetched by one transfer: on a GPU each would wait for what was asked before.
    """
    given = [inputs.input_ids, inputs.attention_mask, inputs.image_grid_thw]
    if action_is_pad is not None:
        given.append(~action_is_pad.bool())
    whole = torch.cat([tensor.flatten().long() for tensor in given]).cpu()
    parts = whole.split([tensor.numel() for tensor in given])
    ids, mask, grids, *rest = (p.view(t.shape) for p, t in zip(parts, given, strict=True))
    on_host = dataclasses.replace(inputs, input_ids=ids, attention_mask=mask, image_grid_thw=grids)
    return on_host, rest[0].bool() if rest else None


def _output_projection(config: EO1Config, width: int) -> nn.Sequential:
    """Return `num_action_layers` linear maps with activations between them."""
    layers: list[nn.Module] = []
    for _ in range(config.num_action_layers - 1):
        layers += [nn.Linear(width, width), activation(config.action_act)]
    return nn.Sequential(*layers, nn.Linear(width, config.max_action_dim))


def _unless_invisible(is_real: Tensor, columns: Tensor) -> Tensor | None:
    """Return None when plain causal attention gives the same velocity without the padding mask.

    It does when no hidden token stands before a visible action token.
    """
    last = torch.where(is_real.gather(1, columns).bool(), columns, -1).amax(dim=1, keepdim=True)
    index = torch.arange(is_real.shape[1], device=is_real.device)
    return is_real if bool(((is_real == 0) & (index < last)).any()) else None


def _fill(embeddings: Tensor, where: Tensor, values: Tensor) -> Tensor:
    """Replace the embeddings at the True positions, in reading order."""
    rows = where.flatten().nonzero().squeeze(1).to(embeddings.device)
    flat = embeddings.flatten(0, 1)
    return flat.index_copy(0, rows, values.to(flat.dtype)).view_as(embeddings)


def place(embeddings: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    """Replace the embeddings in the given columns of each row; shapes (batch, n), (batch, n, w)."""
    index = columns[..., None].expand(-1, -1, embeddings.shape[-1])
    return embeddings.scatter(1, index, values.to(embeddings.dtype))
