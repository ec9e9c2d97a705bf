# SPDX-License-Identifier: Apache-2.0
"""EO-1's sample as a conversation with Qwen2.5-VL.

    system     You are a helpful physical assistant.
    user       one image per camera, <|state_start|><|state_pad|><|state_end|>, task, <|vla|>
    assistant  <|action_start|>, <|action_pad|> * chunk_size, <|action_end|>

The assistant's turn is there at inference too: the policy writes at the positions of its padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from vlakit.errors import ConfigError, ProcessingError
from vlakit.features import TASK, FeatureType, PolicyFeature
from vlakit.processing.rename import check_cameras
from vlakit.processing.step import Step
from vlakit.processing.text import render_conversation

SYSTEM_MESSAGE = "You are a helpful physical assistant."
ACTION_START, ACTION_PAD, ACTION_END = "<|action_start|>", "<|action_pad|>", "<|action_end|>"
STATE_START, STATE_PAD, STATE_END = "<|state_start|>", "<|state_pad|>", "<|state_end|>"
VLA = "<|vla|>"
EO1_TOKENS = (ACTION_START, ACTION_PAD, ACTION_END, STATE_START, STATE_PAD, STATE_END, VLA)
"""In the order in which they are appended, which decides their ids (LeRobot's layout)."""

CONVERSATION = "eo1.conversation"
"""Key under which the conversations travel from this step to the next, which takes them out."""
_CACHED_TASKS = 8192


@dataclass(frozen=True)
class Conversation:
    """What the first step hands to the second: one text per sample, and the cameras in order."""

    texts: list[str]
    cameras: list[str]


class ConversationTemplate(Step):
    """Writes each sample as a conversation; images and action tokens are placeholders."""

    registry_name = "eo1_conversation_template_processor"

    def __init__(self, input_features: Mapping[str, Any], chunk_size: int) -> None:
        """Take the policy's inputs; the order of the cameras is theirs.

        Raises:
            ConfigError: no input is a camera.
        """
        self.input_features = {
            name: entry if isinstance(entry, PolicyFeature) else PolicyFeature.from_json(entry)
            for name, entry in input_features.items()
        }
        self.chunk_size = chunk_size
        self.cameras = self._names(FeatureType.VISUAL)
        if not self.cameras:
            raise ConfigError(
                f"EO-1 needs a camera; the inputs are {sorted(self.input_features) or 'none'}. Use "
                "a dataset with images, or pass input_features=... of the policy."
            )
        self.render = lru_cache(maxsize=_CACHED_TASKS)(self._render)
        """The text of one task, cached."""

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "render"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.render = lru_cache(maxsize=_CACHED_TASKS)(self._render)

    def _names(self, kind: FeatureType) -> list[str]:
        return [name for name, feature in self.input_features.items() if feature.type is kind]

    def config(self) -> dict[str, Any]:
        features = {name: feature.to_json() for name, feature in self.input_features.items()}
        return {"input_features": features, "chunk_size": self.chunk_size}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with its conversations.

        Raises:
            ProcessingError: a camera, the state or the task is missing or has the wrong shape.
        """
        check_cameras(batch, self.cameras)
        num_samples = _check_images(batch, self.cameras)
        for name in self._names(FeatureType.STATE):
            if name not in batch:
                raise ProcessingError(
                    f"the checkpoint needs {name!r}, the batch has {sorted(batch)}. Add it, or "
                    "pass --rename_map if it goes by another name."
                )
        texts = [self.render(task) for task in _tasks(batch, num_samples)]
        return {**batch, CONVERSATION: Conversation(texts, self.cameras)}

    def _render(self, task: str) -> str:
        question = f"{STATE_START}{STATE_PAD}{STATE_END}{task}{VLA}"
        answer = f"{ACTION_START}{ACTION_PAD * self.chunk_size}{ACTION_END}"
        return render_conversation(
            [
                ("system", [SYSTEM_MESSAGE]),
                ("user", [*([None] * len(self.cameras)), question]),
                ("assistant", [answer]),
            ]
        )


def _check_images(batch: Mapping[str, Any], cameras: Sequence[str]) -> int:
    """Return how many samples the batch has, after a look at the cameras' shapes."""
    num_samples = len(batch[cameras[0]])
    for name in cameras:
        image = batch[name]
        shape = list(image.shape)
        if image.ndim != 4 or shape[1] != 3 or shape[0] != num_samples:
            raise ProcessingError(
                f"{name!r} has shape {shape}: expected ({num_samples}, 3, height, width), uint8 or "
                "float in [0, 1]. Move the channels to the front."
            )
    return num_samples


def _tasks(batch: Mapping[str, Any], num_samples: int) -> Sequence[str]:
    tasks = batch.get(TASK)
    is_list = isinstance(tasks, (list, tuple)) and len(tasks) == num_samples
    if is_list and all(isinstance(task, str) for task in tasks):
        return tasks
    raise ProcessingError(
        f"'task' is {tasks!r}: expected one instruction for each of the {num_samples} samples, as "
        "a list of strings. Add batch['task']."
    )
