# SPDX-License-Identifier: Apache-2.0
"""Settings of pi0-FAST: names and defaults are LeRobot's, those after them are ours."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from vlakit.errors import ConfigError
from vlakit.features import (
    ACTION,
    EMPTY_CAMERA,
    OBS_STATE,
    FeatureType,
    NormalizationMode,
    PolicyFeature,
)
from vlakit.policies.backbones.paligemma_config import VARIANTS
from vlakit.policies.config import PolicyConfig
from vlakit.policies.config_checks import (
    check_chunk,
    check_normalization,
    check_vector,
    expect,
    resolve_recompute,
)

PALIGEMMA = "google/paligemma-3b-pt-224"
TINY_PRESET = "tiny-paligemma"
"""Text tokenizer of the variant `tiny`, whose sizes are in `paligemma_config.VARIANTS`."""

_DEFAULT_RESOLUTION = (224, 224)


def _normalization() -> dict[str, NormalizationMode]:
    return {
        "VISUAL": NormalizationMode.IDENTITY,
        "STATE": NormalizationMode.MEAN_STD,
        "ACTION": NormalizationMode.MEAN_STD,
    }


@PolicyConfig.register_subclass("pi0_fast")
@dataclass(frozen=True, kw_only=True)
class PI0FastConfig(PolicyConfig):
    """A PaliGemma that writes an action chunk as FAST tokens, one after another."""

    own_fields: ClassVar[frozenset[str]] = PolicyConfig.own_fields | frozenset(
        {
            "paligemma_config",
            "vlm_base",
            "token_layout",
            "decoding",
            "allow_missing_cameras",
            "allow_truncation",
            "speculative",
            "activation_checkpointing",
        }
    )
    run_fields: ClassVar[frozenset[str]] = PolicyConfig.run_fields | {
        "activation_checkpointing",
        "speculative",
    }

    paligemma_variant: Literal["gemma_300m", "gemma_2b", "tiny"] = "gemma_2b"
    """Sizes of the network. tiny is for tests and demos on a CPU; LeRobot does not know it."""
    action_expert_variant: str = "gemma_300m"
    """Not used: pi0-FAST has no action expert. Kept because LeRobot's file has it."""
    dtype: Literal["bfloat16", "float32"] = "float32"
    """Storage type; with bfloat16 the vision tower, projector and norms stay float32."""
    chunk_size: int = 50
    """Actions predicted per call: the horizon that tokens are encoded and decoded with."""
    n_action_steps: int = 50
    """Actions of a chunk that are executed before the next call."""
    max_state_dim: int = 32
    """Width of the state where no feature says it; states are never padded."""
    max_action_dim: int = 32
    """Width of the action where no feature says it; actions are never padded."""
    max_action_tokens: int = 256
    """Most tokens of an action chunk in training, with those around it."""
    use_relative_actions: bool = False
    """Learn actions relative to the state; statistics are then those of relative actions."""
    relative_exclude_joints: list[str] = field(default_factory=lambda: ["gripper"])
    """Actions whose name contains one of these stay absolute; empty makes all relative."""
    action_feature_names: list[str] | None = None
    """Names of the action's dimensions; null takes those of the dataset."""
    rtc_config: dict[str, Any] | None = None
    """LeRobot's real-time chunking. Not supported: `enabled` must be false, or all of it null."""
    image_resolution: tuple[int, int] = _DEFAULT_RESOLUTION
    """Height and width that images are fitted into, with padding; tiny takes its preset's."""
    empty_cameras: int = 0
    """Cameras that do not exist: masked images after the real ones."""
    tokenizer_max_length: int = 200
    """Most tokens of a prompt."""
    text_tokenizer_name: str = PALIGEMMA
    """Text tokenizer: a hub id, folder or preset; tiny takes `tiny-paligemma`."""
    action_tokenizer_name: str = "lerobot/fast-action-tokenizer"
    """FAST tokenizer: a hub id or a folder, such as `vlakit train-tokenizer` writes."""
    temperature: float = 0.0
    """Sampling temperature; 0 takes the most likely token."""
    max_decoding_steps: int = 256
    """Most tokens generated per chunk."""
    fast_skip_tokens: int = 128
    """Ids at the end of the text vocabulary that actions leave free (PaliGemma's `<seg>`)."""
    validate_action_token_prefix: bool = True
    """With reference decoding, refuse chunks that do not begin with `Action: `."""
    use_kv_cache: bool = True
    """With reference decoding, keep keys and values between tokens; false computes all anew."""
    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=_normalization)
    """How each type of feature is scaled. The state should end up in [-1, 1]: try QUANTILES."""
    gradient_checkpointing: bool = False
    """Recompute each block in the backward pass: less memory, one more forward."""
    compile_model: bool = False
    """Compile the network with torch.compile."""
    compile_mode: str = "max-autotune"
    """Its mode."""
    optimizer_lr: float = 2.5e-5
    """Peak learning rate."""
    optimizer_betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates."""
    optimizer_eps: float = 1e-8
    """AdamW's epsilon."""
    optimizer_weight_decay: float = 0.01
    """Weight decay, on all parameters."""
    optimizer_grad_clip_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them."""
    scheduler_warmup_steps: int = 1_000
    """Steps until the peak learning rate."""
    scheduler_decay_steps: int = 30_000
    """Steps until the final learning rate; shorter runs shrink both in proportion."""
    scheduler_decay_lr: float = 2.5e-6
    """Final learning rate."""
    paligemma_config: dict[str, Any] | None = None
    """Entries of Hugging Face's PaliGemma `config.json` that replace those of the variant."""
    vlm_base: str | None = None
    """PaliGemma weights of a new policy: hub id, folder, preset or `random`; null fits the
    variant."""
    token_layout: Literal["lerobot", "openpi"] = "lerobot"
    """Order of special tokens and cleaning of texts: LeRobot's, or openpi's (lower-cased)."""
    decoding: Literal["constrained", "reference"] = "constrained"
    """constrained always spells a chunk; reference is LeRobot's, which can fail."""
    allow_missing_cameras: bool = False
    """Stand in a masked image for a camera that a batch lacks; false refuses the batch."""
    allow_truncation: bool = False
    """Cut prompts and chunks that are too long, as LeRobot does; false refuses them."""
    activation_checkpointing: Literal["none", "layer", "selective"] | None = None
    """What the backward pass recomputes: nothing, each layer, or all but the products; null goes by
    `gradient_checkpointing`."""

    speculative: Literal["off", "previous_chunk", "ngram"] = "off"
    """Guess action tokens and check several by one pass: the same tokens in fewer steps. Guesses
    are what the last chunk said there, or what last followed the same two tokens."""

    def __post_init__(self) -> None:
        if self.paligemma_variant == "tiny":
            self._fill_in_tiny()
        _check_counts(self)
        check_chunk(self)
        _check_values(self)
        check_normalization(self)
        check_vector("state", self.state_feature)
        check_vector("action", self.action_feature)
        resolve_recompute(self)

    def _fill_in_tiny(self) -> None:
        """Put the preset's values where the large variants' defaults stand."""
        values: dict[str, Any] = {}
        if self.text_tokenizer_name == PALIGEMMA:
            values["text_tokenizer_name"] = TINY_PRESET
        if tuple(self.image_resolution) == _DEFAULT_RESOLUTION:
            vision = (self.paligemma_config or {}).get("vision_config") or {}
            side = vision.get("image_size", VARIANTS["tiny"]["vision_config"]["image_size"])
            values["image_resolution"] = (side, side)
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def recompute(self) -> Literal["none", "layer", "selective"]:
        """What the backward pass computes anew."""
        return resolve_recompute(self)

    @property
    def action_dim(self) -> int:
        """Width of the robot's action."""
        return self.action_feature.shape[0] if self.action_feature else self.max_action_dim

    @property
    def empty_camera_names(self) -> list[str]:
        """Names of the cameras that do not exist."""
        return [f"{EMPTY_CAMERA}{index}" for index in range(self.empty_cameras)]

    @property
    def optional_inputs(self) -> frozenset[str]:
        """The cameras that a masked image stands in for."""
        real = self.image_features if self.allow_missing_cameras else ()
        return frozenset([*real, *self.empty_camera_names])

    @property
    def backbone(self) -> str:
        """Where a new policy's weights come from: hub id, folder, preset or `random`.

        Raises:
            ConfigError: when nothing fits the variant.
        """
        if self.vlm_base is not None:
            return self.vlm_base
        found = {"gemma_2b": PALIGEMMA, "tiny": TINY_PRESET}.get(self.paligemma_variant)
        if found is None:
            raise ConfigError(
                f"--policy.paligemma_variant={self.paligemma_variant} has no published PaliGemma "
                "to start from. Give --policy.pretrained_path=<checkpoint>, or "
                "--policy.vlm_base=random to train from random weights."
            )
        return found

    def with_default_features(self) -> PI0FastConfig:
        """Return a copy with the features that LeRobot adds.

        These are the empty cameras, and state and action, where absent, in the widest form.
        """
        state = PolicyFeature(FeatureType.STATE, (self.max_state_dim,))
        action = PolicyFeature(FeatureType.ACTION, (self.max_action_dim,))
        image = PolicyFeature(FeatureType.VISUAL, (3, *self.image_resolution))
        inputs = self.input_features | dict.fromkeys(self.empty_camera_names, image)
        return self.override(
            {
                "input_features": inputs | {OBS_STATE: self.state_feature or state},
                "output_features": self.output_features | {ACTION: self.action_feature or action},
            }
        )


_COUNTS = (
    *("chunk_size", "n_action_steps", "max_state_dim", "max_action_dim", "max_action_tokens"),
    *("tokenizer_max_length", "max_decoding_steps", "n_obs_steps"),
)


def _check_counts(config: PI0FastConfig) -> None:
    for name in _COUNTS:
        expect(getattr(config, name) >= 1, config, name, "at least 1")
    for name in ("empty_cameras", "fast_skip_tokens"):
        expect(getattr(config, name) >= 0, config, name, "0 or more")
    expect(config.n_obs_steps == 1, config, "n_obs_steps", "1: pi0-FAST looks at one observation")


def _check_values(config: PI0FastConfig) -> None:
    if config.speculative != "off" and config.decoding == "reference":
        raise ConfigError(
            f"--policy.speculative={config.speculative} needs --policy.decoding=constrained; it is "
            "reference, which decodes as LeRobot does. Leave one of them out."
        )
    temperature = config.temperature
    is_usable = math.isfinite(temperature) and temperature >= 0
    expect(is_usable, config, "temperature", "0 or a positive number")
    expect(min(config.image_resolution) >= 1, config, "image_resolution", "two positive sizes")
