# SPDX-License-Identifier: Apache-2.0
"""Settings of EO-1: names and defaults are LeRobot's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from vlakit.errors import ConfigError
from vlakit.features import ACTION, OBS_STATE, FeatureType, NormalizationMode, PolicyFeature
from vlakit.policies.config import PolicyConfig
from vlakit.policies.config_checks import (
    check_chunk,
    check_normalization,
    check_vector,
    expect,
    resolve_recompute,
)


def _normalization() -> dict[str, NormalizationMode]:
    return {
        "VISUAL": NormalizationMode.IDENTITY,
        "STATE": NormalizationMode.MEAN_STD,
        "ACTION": NormalizationMode.MEAN_STD,
    }


@PolicyConfig.register_subclass("eo1")
@dataclass(frozen=True, kw_only=True)
class EO1Config(PolicyConfig):
    """A Qwen2.5-VL backbone that denoises an action chunk by flow matching."""

    own_fields: ClassVar[frozenset[str]] = PolicyConfig.own_fields | frozenset(
        {"activation_checkpointing", "compile_model", "compile_mode", "pack_sequences"}
    )
    run_fields: ClassVar[frozenset[str]] = own_fields

    vlm_base: str = "Qwen/Qwen2.5-VL-3B-Instruct"
    """Backbone of a new policy and its tokenizer: a hub id, a folder, or `tiny-qwen2.5-vl`."""
    vlm_config: dict[str, Any] | None = None
    """Hugging Face's Qwen2.5-VL `config.json`; null reads the one of `vlm_base`."""
    image_min_pixels: int = 64 * 28 * 28
    """Smaller camera images are enlarged to this many pixels."""
    image_max_pixels: int = 128 * 28 * 28
    """Larger camera images are reduced to this many pixels."""
    use_fast_processor: bool = False
    """Resize like torchvision (true) or like PIL (false)."""
    chunk_size: int = 8
    """Actions predicted per call: the horizon."""
    n_action_steps: int = 8
    """Actions of a chunk that are executed before the next call."""
    max_state_dim: int = 32
    """Width that states are padded to."""
    max_action_dim: int = 32
    """Width that actions are padded to."""
    num_denoise_steps: int = 10
    """Euler steps from noise to actions."""
    num_action_layers: int = 2
    """Linear layers of the output projection."""
    action_act: str = "linear"
    """Activation between them; `linear` is none."""
    time_sampling_beta_alpha: float = 1.5
    """Training times are drawn from Beta(alpha, beta) ..."""
    time_sampling_beta_beta: float = 1.0
    """(the second parameter)"""
    time_sampling_scale: float = 0.999
    """... times this scale ..."""
    time_sampling_offset: float = 0.001
    """... plus this offset."""
    min_period: float = 0.004
    """Shortest period of the time embedding."""
    max_period: float = 4.0
    """Longest period of the time embedding."""
    supervise_padding_action_dims: bool = True
    """Include padded action dimensions in the loss."""
    supervise_padding_actions: bool = True
    """Include actions after the end of the episode in the loss."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Storage type of the backbone; auto takes `vlm_config`'s. The flow head is always float32."""
    force_fp32_autocast: bool = True
    """Keep the flow head out of mixed precision."""
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"] | None = None
    """Attention kernel; null means sdpa. flash_attention_2 needs the flash_attn package."""
    gradient_checkpointing: bool = False
    """Recompute each block in the backward pass: less memory, one more forward."""
    pack_sequences: bool = False
    """Train on all samples of a batch in one row without padding. The same loss; faster where the
    instructions of a batch differ in length."""
    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=_normalization)
    """How each type of feature is scaled. A type that is left out is not scaled."""
    optimizer_lr: float = 1e-4
    """Peak learning rate."""
    optimizer_betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates."""
    optimizer_eps: float = 1e-8
    """AdamW's epsilon."""
    optimizer_weight_decay: float = 0.1
    """Weight decay, on all parameters."""
    optimizer_grad_clip_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them."""
    scheduler_warmup_steps: int = 900
    """Steps until the peak learning rate."""
    scheduler_decay_steps: int = 30_000
    """Steps until the final learning rate; shorter runs shrink both in proportion."""
    scheduler_decay_lr: float = 0.0
    """Final learning rate."""
    activation_checkpointing: Literal["none", "layer", "selective"] | None = None
    """What the backward pass recomputes: nothing, each layer, or all but the products; null goes by
    `gradient_checkpointing`."""
    compile_model: bool = False
    """Compile the layers of both towers with torch.compile; pays in long runs."""
    compile_mode: str = "default"
    """Its mode, such as default or max-autotune."""

    def __post_init__(self) -> None:
        _check_counts(self)
        if self.engine == "static" and self.attn_implementation == "flash_attention_2":
            raise ConfigError(
                "--policy.engine=static with --policy.attn_implementation=flash_attention_2: that "
                "kernel's shapes follow the padding. Give --policy.engine=plain, or sdpa."
            )
        _check_time(self)
        check_normalization(self)
        _check_width(self, "state", self.state_feature, self.max_state_dim)
        _check_width(self, "action", self.action_feature, self.max_action_dim)
        resolve_recompute(self)
        if self.compile_model and self.pack_sequences:
            raise ConfigError(
                "--policy.compile_model=true with --policy.pack_sequences=true: a packed row has "
                "other segments at every step, each of which would be compiled anew. Give one of "
                "the two."
            )

    @property
    def recompute(self) -> Literal["none", "layer", "selective"]:
        """What the backward pass computes anew."""
        return resolve_recompute(self)

    @property
    def action_dim(self) -> int:
        """Width of the robot's action."""
        return self.action_feature.shape[0] if self.action_feature else self.max_action_dim

    def with_default_features(self) -> EO1Config:
        """Return a copy whose state and action, where absent, have the padded widths."""
        state = PolicyFeature(FeatureType.STATE, (self.max_state_dim,))
        action = PolicyFeature(FeatureType.ACTION, (self.max_action_dim,))
        return self.override(
            {
                "input_features": self.input_features | {OBS_STATE: self.state_feature or state},
                "output_features": self.output_features | {ACTION: self.action_feature or action},
            }
        )

    @classmethod
    def from_upstream(cls, entries: Mapping[str, Any], *, source: str) -> EO1Config:
        """Read the `config.json` of a checkpoint of the EO-1 project itself (`model_type: eo1`).

        Args:
            entries: the file's content.
            source: folder or hub id of the checkpoint, which also holds the tokenizer.
        """
        renamed = {
            "chunk_size": "action_chunk_size",
            "n_action_steps": "action_chunk_size",
            "max_state_dim": "max_action_dim",
            "max_action_dim": "max_action_dim",
            "num_denoise_steps": "num_denoise_steps",
            "num_action_layers": "num_action_layers",
            "action_act": "action_act",
        }
        settings = {ours: entries[theirs] for ours, theirs in renamed.items() if theirs in entries}
        backbone = {key: value for key, value in entries.items() if key not in _UPSTREAM_OWN_KEYS}
        backbone["model_type"] = "qwen2_5_vl"
        return cls.from_json({**settings, "vlm_base": source, "vlm_config": backbone})


_UPSTREAM_OWN_KEYS = frozenset(
    {
        "architectures",
        "auto_map",
        "model_type",
        "state_token_id",
        "action_token_id",
        "action_pass_id",
        "action_chunk_size",
        "max_action_dim",
        "num_denoise_steps",
        "action_act",
        "num_action_layers",
    }
)
"""Keys of an upstream `config.json` that say nothing about the backbone."""


def _check_counts(config: EO1Config) -> None:
    names = (
        "chunk_size",
        "n_action_steps",
        "max_state_dim",
        "max_action_dim",
        "num_denoise_steps",
        "num_action_layers",
        "image_min_pixels",
        "n_obs_steps",
    )
    for name in names:
        expect(getattr(config, name) >= 1, config, name, "at least 1")
    expect(config.n_obs_steps == 1, config, "n_obs_steps", "1: EO-1 looks at one observation")
    check_chunk(config)
    if config.image_max_pixels < config.image_min_pixels:
        raise ConfigError(
            f"--policy.image_max_pixels={config.image_max_pixels} must be at least "
            f"--policy.image_min_pixels={config.image_min_pixels}. Swap or widen the bounds."
        )


def _check_time(config: EO1Config) -> None:
    for name in ("time_sampling_beta_alpha", "time_sampling_beta_beta", "min_period"):
        value = getattr(config, name)
        expect(math.isfinite(value) and value > 0, config, name, "a positive number")
    expect(
        config.max_period > config.min_period,
        config,
        "max_period",
        f"more than --policy.min_period={config.min_period}",
    )


def _check_width(
    config: EO1Config, what: str, feature: PolicyFeature | None, max_width: int
) -> None:
    check_vector(what, feature)
    if feature is not None and feature.shape[0] > max_width:
        raise ConfigError(
            f"the {what} has {feature.shape[0]} dimensions, more than "
            f"--policy.max_{what}_dim={max_width}. Raise --policy.max_{what}_dim for a new policy, "
            "or choose a checkpoint that is wide enough."
        )
