# SPDX-License-Identifier: Apache-2.0
"""pi0-FAST as a policy: checkpoints, batches and the action queue around the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlakit.checkpoints.pretrained import has_weights, load_state
from vlakit.errors import ActionDecodeError, ConfigError
from vlakit.features import ACTION_TOKEN_MASK, ACTION_TOKENS, LANGUAGE_MASK, LANGUAGE_TOKENS
from vlakit.hub import presets, resolve
from vlakit.policies.backbones.paligemma_config import PaliGemmaSizes
from vlakit.policies.backbones.quantized import store_as_int8
from vlakit.policies.backbones.recorded import Recordings
from vlakit.policies.base import Policy, for_the_log, require, resolve_device
from vlakit.policies.config import PolicyConfig
from vlakit.policies.pi0_fast.codec import ActionCodec
from vlakit.policies.pi0_fast.config import PI0FastConfig
from vlakit.policies.pi0_fast.decoding import ConstrainedDecoder
from vlakit.policies.pi0_fast.generated import Generated
from vlakit.policies.pi0_fast.images import camera_images
from vlakit.policies.pi0_fast.model import PI0FastModel
from vlakit.policies.pi0_fast.reference_decoding import decode_as_reference, read_codes
from vlakit.policies.pi0_fast.run import Run
from vlakit.policies.pi0_fast.sequence import PI0FastInputs
from vlakit.policies.pi0_fast.weights import (
    EMBEDDING_FOR_HEAD,
    HEAD_FOR_EMBEDDING,
    PALIGEMMA,
    VOCABULARY,
    rename_lerobot,
    rename_paligemma,
)
from vlakit.policies.processors import Origin
from vlakit.policies.stored_config import read_policy_config

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
RANDOM = "random"
"""The `vlm_base` that asks for random weights."""
_REMEDIES = {
    "constrained": "Look for NaN in the observation and the weights; was the loss finite?",
    "reference": "Use --policy.decoding=constrained, which always spells one.",
}
"""What to do about rows that spell no chunk, by the way of decoding."""


class PI0FastPolicy(Policy[PI0FastConfig]):
    """pi0-FAST.

    `PI0FastPolicy(config)` has random weights, drawn from torch's global generator; `from_backbone`
    starts from a pretrained PaliGemma, `from_pretrained` from a policy checkpoint.
    """

    def __init__(self, config: PI0FastConfig, *, device: str | torch.device | None = None) -> None:
        """Build the network. The tokenizers are read when they are first needed.

        Args:
            config: the settings.
            device: where to build; 'meta' leaves the weights unallocated, None takes
                `config.device`.
        """
        if (config.rtc_config or {}).get("enabled"):
            raise ConfigError(
                "--policy.rtc_config asks for real-time chunking, which vlakit does not have. Give "
                "--policy.rtc_config=null."
            )
        config = config.with_default_features()
        super().__init__(config, config.n_action_steps)
        self.sizes = PaliGemmaSizes.of_variant(config.paligemma_variant, config.paligemma_config)
        with torch.device("meta"):
            self.model = PI0FastModel(config, self.sizes, DTYPES[config.dtype])
        self._recordings: Recordings[Run] = Recordings(self.model, self.model.join_weights)
        self._previous: list[list[int]] | None = None
        self.decoded_tokens = self.decoding_passes = 0
        self._decoders: dict[torch.device, ConstrainedDecoder] = {}
        self._has_trained = False
        if torch.device(device or "cpu").type != "meta":
            target = resolve_device(device if device is not None else config.device)
            self.to_empty(device=target)
            self.model.init_weights()
            self._make_ready()

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
    ) -> PI0FastPolicy:
        """Load a checkpoint in LeRobot's layout, strictly. See `Policy`.

        Stored tokenizers win over the names in the settings, unless those were changed.
        """
        target = resolve_device(device)
        folder = resolve(path_or_repo_id, revision=revision, token=token)
        stored = read_policy_config(folder)
        settings = config if config is not None else stored
        if not isinstance(stored, PI0FastConfig) or not isinstance(settings, PI0FastConfig):
            raise ConfigError(
                f"{folder} is of type {stored.type!r} and is loaded with settings of type "
                f"{settings.type!r}; expected 'pi0_fast'. Load it with the policy of its own type."
            )
        if settings.paligemma_config is None:
            settings = dataclasses.replace(settings, paligemma_config=stored.paligemma_config)
        settings = settings.override({**overrides, "device": str(target)})
        policy = cls(settings, device="meta")
        load_state(
            policy,
            folder,
            device=target,
            rename=rename_lerobot,
            stand_ins=HEAD_FOR_EMBEDDING,
        )
        policy.origin = Origin(folder, settings.changes_from(stored))
        policy._make_ready()
        return policy.eval()

    @classmethod
    def from_backbone(
        cls,
        config: PolicyConfig,
        *,
        device: str | torch.device | None = None,
        token: str | None = None,
    ) -> PI0FastPolicy:
        """Build a new policy from the weights that `config.backbone` names.

        Random weights are taken only where that says so, or is a preset of this package.

        Raises:
            ConfigError: when nothing is named that fits the variant.
            CheckpointError: when the weights are missing or do not fit.
        """
        if not isinstance(config, PI0FastConfig):
            raise ConfigError(
                f"pi0-FAST got settings of type {config.type!r}; expected 'pi0_fast'."
            )
        target = resolve_device(device if device is not None else config.device)
        if config.backbone == RANDOM:
            return cls(config, device=target)
        folder = resolve(config.backbone, token=token)
        if not has_weights(folder) and config.backbone in presets():
            return cls(config, device=target)
        policy = cls(config, device="meta")
        load_state(
            policy,
            folder,
            device=target,
            rename=rename_paligemma,
            prefix=PALIGEMMA,
            stand_ins=EMBEDDING_FOR_HEAD,
            # Hugging Face pads PaliGemma's vocabulary to 257216; no token has these rows.
            cut_rows=VOCABULARY,
        )
        policy._make_ready()
        return policy

    @cached_property
    def codec(self) -> ActionCodec:
        """The tokenizers: the checkpoint's own, unless other names were given."""
        return ActionCodec(self.config, self.origin, self.sizes.text.vocab_size)

    def forward(
        self, batch: Mapping[str, Any], noise: Tensor | None = None, time: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return the cross entropy of a preprocessed batch's action tokens, and `{"loss": ...}`.

        Args:
            batch: what the preprocessor returns for observations with an action.
            noise: not used: nothing is drawn.
            time: not used.
        """
        self._has_trained |= self.training and torch.is_grad_enabled()
        tokens = require(batch, ACTION_TOKENS).to(self.device)
        mask = require(batch, ACTION_TOKEN_MASK).to(self.device)
        loss = self.model.loss(self._inputs(batch), tokens, mask)
        return loss, {"loss": for_the_log(loss)}

    def num_tokens(self, batch: Mapping[str, Any]) -> int:
        texts = [require(batch, key) for key in (LANGUAGE_MASK, ACTION_TOKEN_MASK)]
        cameras = [name for name in self.config.image_features if batch.get(name) is not None]
        images = len(texts[0]) * len(cameras) * self.sizes.vision.num_patches
        return images + sum(int(mask.sum()) for mask in texts)

    def predict_action_chunk(self, batch: Mapping[str, Any], noise: Tensor | None = None) -> Tensor:
        """Return normalised actions, (batch, chunk_size, action_dim) float32.

        Args:
            batch: what the preprocessor returns for observations without an action.
            noise: (batch, max_decoding_steps) uniform in [0, 1), for a temperature above 0; None
                draws.

        Raises:
            ActionDecodeError: rows spell no chunk, which takes reference decoding or a network
                whose numbers are not finite; `failures` has the reason of each.
        """
        chunk, failures = self.try_action_chunk(batch, noise=noise)
        if failures:
            row, reason = next(iter(failures.items()))
            raise ActionDecodeError(
                f"{len(failures)} of {len(chunk)} rows spell no action chunk; row {row}: {reason}. "
                f"{_REMEDIES[self.config.decoding]}",
                failures,
            )
        return chunk

    @torch.no_grad()
    def try_action_chunk(
        self, batch: Mapping[str, Any], noise: Tensor | None = None
    ) -> tuple[Tensor, dict[int, str]]:
        """As `predict_action_chunk`, with NaN in rows that spell no chunk, and why they do not."""
        generated = self._generate(batch, noise)
        good = [row for row in range(len(generated.codes)) if row not in generated.failures]
        decoded, undecoded = self.codec.decode([generated.codes[row] for row in good])
        sizes = self.config.chunk_size, self.config.action_dim
        chunk = torch.full((len(generated.codes), *sizes), torch.nan)
        chunk[good] = torch.from_numpy(decoded).float()
        failures = generated.failures | {good[row]: why for row, why in undecoded.items()}
        return chunk.to(self.device), failures

    def predict_action_tokens(self, batch: Mapping[str, Any]) -> list[list[int]]:
        """Return what is generated for each row, as text ids.

        That is "Action: ", the codes and "|"; reference decoding may give something else, and no
        "|" when `max_decoding_steps` came first. Nothing follows the "|".
        """
        return self._generate(batch, None).text_ids

    def make_noise(self, batch_size: int, generators: Sequence[torch.Generator]) -> Tensor | None:
        """Return (batch, max_decoding_steps) uniforms, row i from generator i; None when greedy."""
        if len(generators) != batch_size:
            raise ConfigError(
                f"{len(generators)} generators for {batch_size} rows; expected one per row."
            )
        if self.config.temperature == 0:
            return None
        steps = self.config.max_decoding_steps
        rows = [torch.rand(steps, generator=g, device=g.device) for g in generators]
        return torch.stack([row.to(self.device) for row in rows])

    @torch.no_grad()
    def _generate(self, batch: Mapping[str, Any], noise: Tensor | None) -> Generated:
        if not self._has_trained:  # with another vocabulary, what it says before is noise
            self.codec.refuse_foreign_vocabulary()
        self.eval()
        inputs = self._inputs(batch)
        noise = None if noise is None else noise.to(self.device)
        if self.config.decoding == "constrained":
            return self._decode(inputs, noise)
        ids = decode_as_reference(
            self.model,
            inputs,
            self.codec.vocabulary,
            max_steps=self.config.max_decoding_steps,
            layout=self.config.token_layout,
            temperature=self.config.temperature,
            use_kv_cache=self.config.use_kv_cache,
            noise=noise,
        )
        check_prefix = self.config.validate_action_token_prefix
        return read_codes(ids, self.codec.vocabulary, check_prefix=check_prefix)

    def _decode(self, inputs: PI0FastInputs, noise: Tensor | None) -> Generated:
        speculates = self.config.speculative != "off"
        recordings = self._recordings if self.has_fixed_shapes or speculates else None
        generated = self._decoder().decode(self.model, inputs, noise, recordings, self._previous)
        self._previous = generated.codes if speculates else None
        self.decoded_tokens += sum(map(len, generated.codes))
        self.decoding_passes += sum(generated.passes) + len(generated.codes)
        return generated

    @property
    def tokens_per_pass(self) -> float:
        """Action tokens per forward pass so far, the prefill counted; above 1 by speculation."""
        return self.decoded_tokens / max(self.decoding_passes, 1)

    def reset(self) -> None:
        super().reset()
        self._previous = None

    def _decoder(self) -> ConstrainedDecoder:
        if self.device not in self._decoders:
            self._decoders[self.device] = ConstrainedDecoder(
                self.codec.vocabulary,
                self.codec.fast_tokenizer.token_bytes,
                num_coefficients=self.config.chunk_size * self.config.action_dim,
                max_steps=self.config.max_decoding_steps,
                layout=self.config.token_layout,
                temperature=self.config.temperature,
                speculation=self.config.speculative,
                device=self.device,
            )
        return self._decoders[self.device]

    def _inputs(self, batch: Mapping[str, Any]) -> PI0FastInputs:
        images, image_mask = camera_images(
            batch,
            list(self.config.image_features),
            may_be_missing=self.config.optional_inputs,
            resolution=self.config.image_resolution,
            device=self.device,
        )
        return PI0FastInputs(
            images=images,
            image_mask=image_mask,
            prompt_ids=require(batch, LANGUAGE_TOKENS).to(self.device),
            prompt_mask=require(batch, LANGUAGE_MASK).to(self.device),
        )

    def _make_ready(self) -> None:
        """Quantise and compile, where the settings say so; the weights are there."""
        if self.config.weight_quantization == "int8":
            store_as_int8(self.model.paligemma.language_model.layers)
        if self.config.compile_model:
            self.model.compile_blocks(self.config.compile_mode)
