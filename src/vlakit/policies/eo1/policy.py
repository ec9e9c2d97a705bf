# SPDX-License-Identifier: Apache-2.0
"""EO-1 as a policy: checkpoints, batches, draws and the action queue around the network."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vlakit.checkpoints.pretrained import has_weights, load_state, read_config, stored_tensors
from vlakit.errors import CheckpointError, ConfigError, ProcessingError
from vlakit.features import ACTION, ACTION_IS_PAD, OBS_STATE
from vlakit.hub import presets, resolve
from vlakit.policies.backbones.quantized import store_as_int8
from vlakit.policies.backbones.qwen2_5_vl_config import Qwen25VLSizes
from vlakit.policies.backbones.recorded import Recordings
from vlakit.policies.base import Policy, for_the_log, require, resolve_device
from vlakit.policies.config import PolicyConfig
from vlakit.policies.eo1.config import EO1Config
from vlakit.policies.eo1.flow_matching import sample_time
from vlakit.policies.eo1.model import EO1Inputs, EO1Model
from vlakit.policies.eo1.sampling import Sampler
from vlakit.policies.eo1.weights import (
    BACKBONE,
    TIED,
    TOKENS,
    rename_backbone,
    rename_upstream,
    upstream_token_ids,
)
from vlakit.policies.processors import Origin

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class EO1Policy(Policy[EO1Config]):
    """EO-1.

    `EO1Policy(config)` has random weights, drawn from torch's global generator; `from_backbone`
    starts from a pretrained Qwen2.5-VL, `from_pretrained` from a policy checkpoint.
    """

    def __init__(self, config: EO1Config, *, device: str | torch.device | None = None) -> None:
        """Build the network.

        Args:
            config: a `vlm_config` that is null is read from `vlm_base`.
            device: where to build; 'meta' leaves the weights unallocated, None takes
                `config.device`.
        """
        config = _complete(config)
        _check_attention(config)
        super().__init__(config, config.n_action_steps)
        self.sizes = Qwen25VLSizes.from_json(config.vlm_config or {})
        with torch.device("meta"):
            self.model = EO1Model(config, self.sizes, _storage_dtype(config, self.sizes))
        self._sampler = Sampler(self.model)
        self._recordings: Recordings[Tensor] = Recordings(self.model, self.model.join_weights)
        self.expected_token_ids: dict[str, int] = {}
        """Ids that the checkpoint's configuration names; a batch with others is refused."""
        if torch.device(device or "cpu").type != "meta":
            target = resolve_device(device if device is not None else config.device)
            self.to_empty(device=target)
            self.model.vlm_backbone.tie_weights()
            self.model.init_weights()
            self._make_ready()

    @property
    def has_fixed_shapes(self) -> bool:
        # flash_attn packs real tokens by an index that the host has to know.
        packs = self.config.attn_implementation == "flash_attention_2"
        return super().has_fixed_shapes and not packs

    @property
    def tied_weights(self) -> dict[str, str]:
        return TIED if self.sizes.tie_word_embeddings else {}

    @classmethod
    def from_pretrained(
        cls,
        path_or_repo_id: str | Path,
        *,
        device: str | torch.device | None = "cpu",
        revision: str | None = None,
        token: str | None = None,
        config: PolicyConfig | None = None,
        **overrides: Any,
    ) -> EO1Policy:
        """Load a checkpoint: LeRobot's layout, or the EO-1 project's own. See `Policy`."""
        target = resolve_device(device)
        folder = resolve(path_or_repo_id, revision=revision, token=token)
        entries = read_config(folder)
        stored, is_upstream = _stored_config(entries, folder, str(path_or_repo_id))
        settings = config if config is not None else stored
        if not isinstance(settings, EO1Config):
            raise ConfigError(
                f"{folder} is loaded as EO-1 with settings of type {settings.type!r}; expected "
                "'eo1'. Load it with the policy of its own type."
            )
        if settings.vlm_config is None:
            settings = dataclasses.replace(settings, vlm_config=stored.vlm_config)
        settings = settings.override({**overrides, "device": str(target)})
        policy = cls(_with_stored_dtype(settings, folder), device="meta")
        load_state(
            policy,
            folder,
            device=target,
            rename=rename_upstream if is_upstream else None,
            tied=policy.tied_weights,
        )
        policy.model.vlm_backbone.tie_weights()
        policy.origin = Origin(folder, settings.changes_from(stored))
        if is_upstream:
            policy.expected_token_ids = upstream_token_ids(entries, folder)
        policy._make_ready()
        return policy.eval()

    @classmethod
    def from_backbone(
        cls,
        config: PolicyConfig,
        *,
        device: str | torch.device | None = None,
        token: str | None = None,
    ) -> EO1Policy:
        """Build a new policy: `vlm_base`'s weights and a random flow head.

        A preset of this package has no weights; its backbone is random too.

        Raises:
            CheckpointError: when `vlm_base` is no preset and has no weights, or they do not fit.
        """
        if not isinstance(config, EO1Config):
            raise ConfigError(f"EO-1 got settings of type {config.type!r}; expected 'eo1'.")
        folder = resolve(config.vlm_base, token=token)
        target = resolve_device(device if device is not None else config.device)
        if not has_weights(folder) and config.vlm_base in presets():
            return cls(config, device=target)
        policy = cls(config, device="meta")
        load_state(
            policy,
            folder,
            device=target,
            rename=rename_backbone,
            tied=policy.tied_weights,
            prefix=BACKBONE,
        )
        policy.model.vlm_backbone.tie_weights()
        policy.model.init_head(target)
        policy._make_ready()
        return policy

    def forward(
        self, batch: Mapping[str, Any], noise: Tensor | None = None, time: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return the flow-matching loss of a preprocessed batch, and `{"loss": ...}`.

        Args:
            batch: what the preprocessor returns for observations with an action.
            noise: (batch, horizon, max_action_dim); None draws it.
            time: (batch,) in (0, 1]; None draws it, before the noise.
        """
        inputs = self._inputs(batch)
        action = self._pad(require(batch, ACTION), self.config.max_action_dim, ACTION)
        action = action.to(self.device, torch.float32)
        if action.shape[1] != self.config.chunk_size:
            raise ProcessingError(
                f"'action' holds {action.shape[1]} actions per row; expected "
                f"chunk_size={self.config.chunk_size}. Load the dataset with that many "
                "delta_timestamps."
            )
        if time is None:
            time = self._sample_time(action.shape[0])
        if noise is None:
            noise = torch.randn(action.shape, device=self.device)
        is_pad = batch.get(ACTION_IS_PAD)
        loss = self.model.loss(
            inputs,
            action,
            noise.to(self.device, torch.float32),
            time.to(self.device, torch.float32),
            None if is_pad is None else is_pad.to(self.device),
        )
        return loss, {"loss": for_the_log(loss)}

    def num_tokens(self, batch: Mapping[str, Any]) -> int:
        return int(require(batch, "attention_mask").sum())

    @torch.no_grad()
    def predict_action_chunk(self, batch: Mapping[str, Any], noise: Tensor | None = None) -> Tensor:
        """Return normalised actions, (batch, horizon, action_dim) float32.

        Args:
            batch: what the preprocessor returns for observations without an action.
            noise: (batch, horizon, max_action_dim); None draws it.
        """
        self.eval()
        inputs = self._inputs(batch)
        rows = inputs.input_ids.shape[0]
        if noise is None:
            noise = torch.randn(self._noise_shape(rows), device=self.device)
        noise = noise.to(self.device, torch.float32)
        recordings = self._recordings if self.has_fixed_shapes else None
        steps = self.config.num_denoise_steps
        actions = self._sampler.sample(inputs, noise, steps, recordings)
        return actions[..., : self.config.action_dim].float()

    def make_noise(self, batch_size: int, generators: Sequence[torch.Generator]) -> Tensor:
        """Return (batch, horizon, max_action_dim) noise, row i from generator i."""
        if len(generators) != batch_size:
            raise ConfigError(
                f"{len(generators)} generators for {batch_size} rows; expected one per row."
            )
        shape = self._noise_shape(1)[1:]
        rows = [torch.randn(shape, generator=g, device=g.device) for g in generators]
        return torch.stack([row.to(self.device) for row in rows])

    def _noise_shape(self, rows: int) -> tuple[int, int, int]:
        return (rows, self.config.chunk_size, self.config.max_action_dim)

    def _sample_time(self, rows: int) -> Tensor:
        return sample_time(
            rows,
            alpha=self.config.time_sampling_beta_alpha,
            beta=self.config.time_sampling_beta_beta,
            scale=self.config.time_sampling_scale,
            offset=self.config.time_sampling_offset,
        )

    def _inputs(self, batch: Mapping[str, Any]) -> EO1Inputs:
        ids = {key: int(require(batch, key)) for key in TOKENS}
        for key, expected in self.expected_token_ids.items():
            if ids[key] != expected:
                raise CheckpointError(
                    f"the batch has {key}={ids[key]}, but the checkpoint was trained with "
                    f"{expected}. Use the tokenizer that belongs to the checkpoint."
                )
        state = self._pad(require(batch, OBS_STATE), self.config.max_state_dim, OBS_STATE)
        keys = ("input_ids", "attention_mask", "pixel_values", "image_grid_thw")
        tensors = {key: require(batch, key).to(self.device) for key in keys}
        return EO1Inputs(
            **tensors,
            state=state.to(self.device),
            state_token_id=ids["state_token_id"],
            action_token_id=ids["action_token_id"],
        )

    def _make_ready(self) -> None:
        """Quantise and compile, where the settings say so; the weights are there."""
        if self.config.weight_quantization == "int8":
            store_as_int8(self.model.vlm_backbone.model.language_model.layers)
        if self.config.compile_model:
            self.model.vlm_backbone.compile_blocks(self.config.compile_mode)

    def _pad(self, value: Tensor, width: int, name: str) -> Tensor:
        """Fill the last axis with zeros up to `width`."""
        if value.shape[-1] > width:
            what = "action" if name == ACTION else "state"
            raise ConfigError(
                f"{name!r} has {value.shape[-1]} dimensions, more than "
                f"--policy.max_{what}_dim={width}. Raise --policy.max_{what}_dim for a new policy, "
                "or choose a checkpoint that is wide enough."
            )
        return F.pad(value, (0, width - value.shape[-1]))


def _complete(config: EO1Config) -> EO1Config:
    """Fill in the backbone's configuration and absent features."""
    if config.vlm_config is None:
        folder = resolve(config.vlm_base, patterns=["config.json"])
        config = dataclasses.replace(config, vlm_config=read_config(folder))
    return config.with_default_features()


def _check_attention(config: EO1Config) -> None:
    wanted = config.attn_implementation
    if wanted == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise ConfigError(
            "--policy.attn_implementation=flash_attention_2 needs the package flash_attn, which is "
            "not installed. Install it (`pip install flash-attn`), or choose sdpa."
        )


def _storage_dtype(config: EO1Config, sizes: Qwen25VLSizes) -> torch.dtype:
    name = sizes.dtype if config.dtype == "auto" else config.dtype
    if (name or "float32") not in DTYPES:
        raise ConfigError(
            f"vlm_config has dtype {name!r}; expected one of {', '.join(DTYPES)}. "
            "Set --policy.dtype=bfloat16 or float32."
        )
    return DTYPES[name or "float32"]


def _stored_config(entries: Mapping[str, Any], folder: Path, source: str) -> tuple[EO1Config, bool]:
    """Return the settings in a checkpoint, and whether it has the EO-1 project's own layout."""
    if entries.get("type") == "eo1":
        return EO1Config.from_json(entries, source=str(folder / "config.json")), False
    if "type" not in entries and entries.get("model_type") == "eo1":
        return EO1Config.from_upstream(entries, source=source), True
    kind = entries.get("type") or entries.get("model_type")
    raise CheckpointError(
        f"{folder / 'config.json'} describes a {kind!r}; expected an EO-1 checkpoint ('eo1'). "
        "Start a new policy from a Qwen2.5-VL with --policy.type=eo1 --policy.vlm_base."
    )


def _with_stored_dtype(config: EO1Config, folder: Path) -> EO1Config:
    """Let dtype 'auto' mean the type of the stored backbone where `vlm_config` names none."""
    vlm_config = config.vlm_config or {}
    if config.dtype != "auto" or vlm_config.get("dtype") or vlm_config.get("torch_dtype"):
        return config
    names = {"BF16": "bfloat16", "F16": "float16"}
    stored = next((t.dtype for t in stored_tensors(folder) if "norm" in t.key), "F32")
    return dataclasses.replace(
        config, vlm_config={**vlm_config, "dtype": names.get(stored, "float32")}
    )
