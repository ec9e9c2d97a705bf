# SPDX-License-Identifier: Apache-2.0
"""From an observation to an action chunk: the prefix once, then the suffix at every step."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from vlakit.policies.backbones.qwen2_5_vl_vision import Grid
from vlakit.policies.backbones.recorded import Recorded, Recordings
from vlakit.policies.eo1.flow_matching import euler_times, integrate
from vlakit.policies.eo1.layout import Layouts, TokenIds
from vlakit.policies.eo1.model import EO1Inputs, EO1Model, place

PREFIX_MULTIPLE = 16
"""At fixed shapes, prefixes are padded to a multiple of so many tokens."""


@dataclass(frozen=True)
class Observation:
    """What one chunk depends on, tensors only; see `EO1Inputs` and `Layout`."""

    pixel_values: Tensor
    state: Tensor
    noise: Tensor
    """(batch, horizon, max_action_dim) at t=1."""
    times: Tensor
    """(steps,) at which the velocity is asked for."""
    ids: Tensor
    positions: Tensor
    image_rows: Tensor
    state_columns: Tensor
    is_real: Tensor | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """All that are there, in the order of the fields."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return [value for value in values if value is not None]


class Sampler:
    """Denoises chunks with one network."""

    def __init__(self, model: EO1Model) -> None:
        self._model = model
        merge = model.sizes.vision.spatial_merge_size
        self._layouts = Layouts(model.config.chunk_size, merge)

    @torch.no_grad()
    def sample(
        self,
        inputs: EO1Inputs,
        noise: Tensor,
        num_steps: int,
        recordings: Recordings[Tensor] | None = None,
    ) -> Tensor:
        """Denoise one chunk per row.

        Args:
            inputs: the batch; rows padded on the left so that their actions stand in equal columns.
            noise: (batch, horizon, max_action_dim) at t=1.
            num_steps: Euler steps.
            recordings: compute at fixed shapes, recorded here; None takes those of the batch.

        Returns:
            (batch, horizon, max_action_dim) float32, normalised.

        Raises:
            ProcessingError: the tokens are not those of a prompt for this policy.
        """
        image_id = self._model.sizes.image_token_id
        layout = self._layouts.get(
            inputs.input_ids,
            inputs.attention_mask,
            inputs.image_grid_thw,
            TokenIds(image_id, inputs.state_token_id, inputs.action_token_id),
            multiple=1 if recordings is None else PREFIX_MULTIPLE,
        )
        observation = Observation(
            pixel_values=inputs.pixel_values,
            state=inputs.state,
            noise=noise,
            times=euler_times(num_steps).to(noise.device),
            ids=layout.ids,
            positions=layout.positions,
            image_rows=layout.image_rows,
            state_columns=layout.state_columns,
            is_real=layout.is_real,
        )
        first, grids = layout.first, layout.grids
        if recordings is None:
            return self._denoise(observation, first, grids, uses_joined=False)
        tensors = observation.tensors

        def begin(*tensors: Tensor) -> Tensor:
            return self._denoise(Observation(*tensors), first, grids, uses_joined=True)

        def make() -> Recorded[Tensor]:
            return Recorded(begin, tensors, pool=recordings.pool)

        recorded = recordings.get((first, grids), tensors, make)
        return recorded.begin(*tensors).clone()  # the next chunk overwrites it

    def _denoise(
        self, seen: Observation, first: int, grids: tuple[Grid, ...], *, uses_joined: bool
    ) -> Tensor:
        model = self._model
        language_model = model.vlm_backbone.model.language_model
        _, batch, length = seen.positions.shape
        cache = language_model.new_cache(batch, length, uses_joined=uses_joined)
        prefix, is_real = self._embed_prefix(seen, grids), seen.is_real
        language_model(
            prefix,
            seen.positions[:, :, :first],
            is_real=None if is_real is None else is_real[:, :first],
            cache=cache,
        )
        cache.start = first
        # Times and what the suffix sees are those of all chunks: worked out once, not at each step.
        looks = language_model.visibility(
            seen.positions[:, :, first:],
            prefix.dtype,
            is_real=is_real,
            earlier=first,
            are_few=uses_joined,
        )
        embedded_times = iter(model.embed_times(seen.times))

        def velocity(x_t: Tensor, _time: Tensor) -> Tensor:
            suffix = model.embed_suffix(x_t, next(embedded_times)).to(prefix.dtype)
            hidden = language_model.run(suffix, looks, cache=cache)
            return model.read_velocity(hidden).to(x_t.dtype)

        return integrate(velocity, seen.noise, len(seen.times))

    def _embed_prefix(self, seen: Observation, grids: tuple[Grid, ...]) -> Tensor:
        """Return (batch, first, width): text, with images and state in place."""
        backbone = self._model.vlm_backbone.model
        text = backbone.language_model.embed_tokens(seen.ids)
        images = backbone.visual(seen.pixel_values, grids).to(text.dtype)
        filled = text.flatten(0, 1).index_copy(0, seen.image_rows, images).view_as(text)
        return place(filled, seen.state_columns, self._model.embed_state(seen.state))
