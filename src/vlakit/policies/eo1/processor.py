# SPDX-License-Identifier: Apache-2.0
"""EO-1's processors: a conversation as Qwen2.5-VL's inputs, and the whole pipelines."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vlakit.checkpoints.pretrained import read_json
from vlakit.errors import CheckpointError, ConfigError, ProcessingError
from vlakit.features import ACTION
from vlakit.hub import resolve
from vlakit.policies.eo1.config import EO1Config
from vlakit.policies.eo1.conversation import (
    ACTION_PAD,
    CONVERSATION,
    EO1_TOKENS,
    STATE_PAD,
    Conversation,
    ConversationTemplate,
)
from vlakit.policies.processors import StepSettings
from vlakit.processing.batch import ToBatch, ToDevice
from vlakit.processing.images import PatchSettings, patch_grid, qwen_patches
from vlakit.processing.normalize import Normalizer, Stats, Unnormalizer
from vlakit.processing.padding import pad_rows
from vlakit.processing.pipeline import POSTPROCESSOR, PREPROCESSOR, Pipeline
from vlakit.processing.rename import RenameObservations, rename_keys
from vlakit.processing.step import Step
from vlakit.processing.text import (
    IMAGE_PAD,
    PAD,
    TOKENIZER_FILES,
    TextTokenizer,
    copy_tokenizer,
    expand_images,
)

TOKENIZER_FOLDER = "tokenizer"
"""Folder of a checkpoint with its text tokenizer and image settings."""

_CACHED_ROWS = 8192


class QwenInputs(Step):
    """Turns conversations and camera images into token ids, masks and image patches."""

    registry_name = "eo1_qwen_processor"

    def __init__(
        self,
        processor_name: str = "Qwen/Qwen2.5-VL-3B-Instruct",
        image_min_pixels: int = 64 * 28 * 28,
        image_max_pixels: int = 128 * 28 * 28,
        use_fast_processor: bool = False,
    ) -> None:
        """Take the name of the tokenizer and the bounds of the images.

        Args:
            processor_name: folder, preset or hub id with tokenizer and image settings.
            image_min_pixels: smaller images are enlarged to about this area.
            image_max_pixels: larger images are shrunk to about this area.
            use_fast_processor: resize as torchvision does, not as Pillow.

        Raises:
            ConfigError: a bound is missing.
        """
        for name, value in (("min", image_min_pixels), ("max", image_max_pixels)):
            if not isinstance(value, int):
                raise ConfigError(
                    f"image_{name}_pixels={value!r}: expected a whole number of pixels. Pass "
                    f"--policy.image_{name}_pixels."
                )
        self.processor_name = str(processor_name)
        self._bounds = PatchSettings(
            min_pixels=image_min_pixels,
            max_pixels=image_max_pixels,
            use_fast_processor=use_fast_processor,
        )
        self._stored: Path | None = None
        self._row = lru_cache(maxsize=_CACHED_ROWS)(self._row_uncached)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_row"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._row = lru_cache(maxsize=_CACHED_ROWS)(self._row_uncached)

    def config(self) -> dict[str, Any]:
        return {
            "processor_name": self.processor_name,
            "image_min_pixels": self._bounds.min_pixels,
            "image_max_pixels": self._bounds.max_pixels,
            "use_fast_processor": self._bounds.use_fast_processor,
        }

    def load_assets(
        self, folder: Path, artifacts: Mapping[str, str], overridden: Collection[str]
    ) -> None:
        """Prefer the stored tokenizer over the name in the file, unless the caller gave one."""
        stored = folder / artifacts.get("processor_name", TOKENIZER_FOLDER)
        if "processor_name" not in overridden and (stored / "tokenizer.json").is_file():
            self._stored = stored

    def save_assets(self, folder: Path) -> None:
        copy_tokenizer(
            self._stored or _tokenizer_on_this_machine(self.processor_name),
            folder / TOKENIZER_FOLDER,
        )

    @cached_property
    def source(self) -> Path:
        """The folder with the tokenizer and the image settings."""
        patterns = [*TOKENIZER_FILES, "config.json"]
        return self._stored or resolve(self.processor_name, patterns=patterns)

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """The text tokenizer with EO-1's tokens."""
        return TextTokenizer.from_pretrained(self.source, EO1_TOKENS)

    @cached_property
    def patches(self) -> PatchSettings:
        """How images become patches."""
        return self._bounds.updated_from(self.source)

    def check(self, entries: Mapping[str, Any]) -> None:
        """Make sure that the special tokens have rows in the embedding and the stated ids.

        Raises:
            CheckpointError: they do not; nothing in the reference would notice.
        """
        _ = self.patches  # the image settings are read now, not with the first batch
        backbone = entries.get("vlm_config") or _backbone_config(self.source) or entries
        text = backbone.get("text_config") or backbone
        stated = {
            STATE_PAD: entries.get("state_token_id"),
            ACTION_PAD: entries.get("action_token_id"),
            IMAGE_PAD: backbone.get("image_token_id"),
        }
        expected = {token: found for token, found in stated.items() if found is not None}
        vocab_size = text.get("vocab_size")
        if not isinstance(vocab_size, int | None):
            raise CheckpointError(
                f"the backbone's configuration has vocab_size={vocab_size!r}; expected a whole "
                "number. Restore the file from its source."
            )
        self.tokenizer.check_ids((*EO1_TOKENS, IMAGE_PAD, PAD), vocab_size, expected)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with Qwen2.5-VL's inputs.

        Adds `input_ids`, `attention_mask` and `mm_token_type_ids` (1 on image tokens), all
        (batch, length) int64; `pixel_values` (patches of all images, features) float32 and
        `image_grid_thw` (images, 3), sample by sample and camera by camera; `state_token_id` and
        `action_token_id`. Rows are padded on the right when there is an action (training), on the
        left otherwise, so that all rows end with the action tokens in the same columns.
        """
        return self.deliver(self.prepare(batch))

    def prepare(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with token ids, masks and grids; the pixels stay as they are."""
        conversation: Conversation = batch[CONVERSATION]
        grids = self._grids([batch[name] for name in conversation.cameras])
        merged = self.patches.merge_size**2
        tokens_per_image = tuple(rows * columns // merged for rows, columns in grids)
        side = "left" if batch.get(ACTION) is None else "right"
        input_ids, mask = self._token_rows(conversation.texts, tokens_per_image, side)
        sizes = torch.tensor([[1, rows, columns] for rows, columns in grids])
        return batch | {
            "input_ids": input_ids,
            "attention_mask": mask,
            "mm_token_type_ids": (input_ids == self.tokenizer.token_id(IMAGE_PAD)).long(),
            "image_grid_thw": sizes.repeat(len(conversation.texts), 1),
            "state_token_id": self.tokenizer.token_id(STATE_PAD),
            "action_token_id": self.tokenizer.token_id(ACTION_PAD),
        }

    def deliver(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with image patches, made on the device, without the conversations."""
        result = {key: value for key, value in batch.items() if key != CONVERSATION}
        cameras = batch[CONVERSATION].cameras
        images = {name: self._on_device(batch[name]) for name in cameras}
        return result | images | {"pixel_values": self._pixel_values(list(images.values()))}

    def _on_device(self, image: Tensor) -> Tensor:
        if self.device is None:
            return image
        return image.to(self.device, non_blocking=self.device.type == "cuda")

    def _grids(self, images: Sequence[Tensor]) -> list[tuple[int, int]]:
        """Return rows and columns of patches of one sample's images, one image per camera."""
        return [patch_grid(image.shape[-2], image.shape[-1], self.patches) for image in images]

    def _pixel_values(self, images: Sequence[Tensor]) -> Tensor:
        """Return the patches, sample by sample and camera by camera; images are per camera."""
        settings = self.patches
        lengths = [rows * columns for rows, columns in self._grids(images)]
        features = 3 * settings.temporal_patch_size * settings.patch_size**2
        values = torch.empty(len(images[0]), sum(lengths), features, device=images[0].device)
        for image, part in zip(images, values.split(lengths, dim=1), strict=True):
            qwen_patches(image, settings, out=part)
        return values.flatten(0, 1)

    def _token_rows(
        self,
        texts: Sequence[str],
        tokens_per_image: tuple[int, ...],
        side: Literal["left", "right"],
    ) -> tuple[Tensor, Tensor]:
        # A batch has few different tasks: pad those, then repeat rows.
        unique = {text: index for index, text in enumerate(dict.fromkeys(texts))}
        rows = [self._row(text, tokens_per_image) for text in unique]
        ids, mask = pad_rows(rows, self.tokenizer.token_id(PAD), side)
        order = torch.tensor([unique[text] for text in texts])
        return ids[order], mask[order]

    def _row_uncached(self, text: str, tokens_per_image: tuple[int, ...]) -> Tensor:
        ids = self.tokenizer.encode(text)
        image_id = self.tokenizer.token_id(IMAGE_PAD)
        if ids.count(image_id) != len(tokens_per_image):
            raise ProcessingError(
                f"a task contains the special token {IMAGE_PAD}: there are "
                f"{ids.count(image_id)} for {len(tokens_per_image)} images. Take it out."
            )
        return torch.tensor(expand_images(ids, image_id, tokens_per_image))


def _tokenizer_on_this_machine(name: str) -> Path:
    return resolve(name, patterns=TOKENIZER_FILES, local_only=True)


_STEP_SETTINGS: dict[str, tuple[str, str]] = {
    "vlm_base": (QwenInputs.registry_name, "processor_name"),
    "image_min_pixels": (QwenInputs.registry_name, "image_min_pixels"),
    "image_max_pixels": (QwenInputs.registry_name, "image_max_pixels"),
    "use_fast_processor": (QwenInputs.registry_name, "use_fast_processor"),
    "chunk_size": (ConversationTemplate.registry_name, "chunk_size"),
    "input_features": (ConversationTemplate.registry_name, "input_features"),
}
"""Field of the policy -> the step of the preprocessor that keeps it, and under which name."""


def step_settings(config: EO1Config, changed: Collection[str]) -> StepSettings:
    """Return what the steps of a stored pipeline take from the policy's settings."""
    preprocess: dict[str, dict[str, Any]] = {}
    for field, (step, key) in _STEP_SETTINGS.items():
        if field in changed:
            preprocess.setdefault(step, {})[key] = getattr(config, field)
    return StepSettings(preprocess)


def save_tokenizer(config: EO1Config, folder: Path) -> None:
    """Write the tokenizer of a policy that has no processors into its checkpoint.

    Raises:
        CheckpointError: the tokenizer is not on this machine.
    """
    copy_tokenizer(_tokenizer_on_this_machine(config.vlm_base), folder / TOKENIZER_FOLDER)


def _backbone_config(folder: Path) -> Mapping[str, Any] | None:
    path = folder / "config.json"
    return read_json(path) if path.is_file() else None


def make_processors(
    config: EO1Config,
    stats: Stats | None,
    *,
    rename_map: Mapping[str, str] | None = None,
    checkpoint: Path | None = None,
    changed: Collection[str] = (),
) -> tuple[Pipeline, Pipeline]:
    """Return the preprocessor and the postprocessor of a new policy, as LeRobot builds them.

    Args:
        config: the policy's settings, features included.
        stats: statistics of the dataset by feature, under the dataset's names.
        rename_map: names of the dataset to those of the policy.
        checkpoint: folder whose stored tokenizer, if it has one, is taken for `vlm_base`'s.
        changed: settings that are not the checkpoint's; a `vlm_base` among them is itself meant.

    Raises:
        ProcessingError: a feature that is scaled lacks a statistic.
        CheckpointError: the tokenizer is missing or does not fit the backbone.
    """
    stats = rename_keys(stats or {}, rename_map or {})
    scaling = {"norm_map": config.normalization_mapping, "stats": stats}
    features = {**config.input_features, **config.output_features}
    qwen_inputs = QwenInputs(
        config.vlm_base,
        config.image_min_pixels,
        config.image_max_pixels,
        config.use_fast_processor,
    )
    if checkpoint is not None and "vlm_base" not in changed:
        qwen_inputs.load_assets(checkpoint, artifacts={}, overridden=())
    preprocess = Pipeline(
        [
            RenameObservations(rename_map),
            ToBatch(),
            Normalizer(features, **scaling),
            ConversationTemplate(config.input_features, config.chunk_size),
            qwen_inputs,
            ToDevice(config.device or "cpu"),
        ],
        PREPROCESSOR,
    )
    postprocess = Pipeline(
        [Unnormalizer(config.output_features, **scaling), ToDevice("cpu")], POSTPROCESSOR
    )
    for pipeline in (preprocess, postprocess):
        pipeline.check(config.to_json())
    return preprocess, postprocess
