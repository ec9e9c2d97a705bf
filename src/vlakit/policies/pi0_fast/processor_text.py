# SPDX-License-Identifier: Apache-2.0
"""Prompts as token ids, padded to one length."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from vlakit.errors import CheckpointError, ConfigError, ProcessingError
from vlakit.features import LANGUAGE_MASK, LANGUAGE_TOKENS
from vlakit.hub import resolve
from vlakit.policies.pi0_fast.action_tokens import BOS, PAD
from vlakit.processing.padding import pad_rows_to
from vlakit.processing.step import Step
from vlakit.processing.text import TOKENIZER_FILES, TextTokenizer, copy_tokenizer

TOKENIZER_FOLDER = "tokenizer"
"""Folder of a checkpoint with its text tokenizer."""


@lru_cache(maxsize=4)
def load_text_tokenizer(folder: Path) -> TextTokenizer:
    """Return the tokenizer of a folder; the processors and the policy share one."""
    return TextTokenizer.from_pretrained(folder, flag="text_tokenizer_name")


def tokenizer_folder(name: str, *, local_only: bool = False) -> Path:
    """Return the folder that the name of a text tokenizer stands for.

    Raises:
        CheckpointError: it cannot be found.
    """
    return resolve(name, patterns=TOKENIZER_FILES, local_only=local_only)


class PromptTokens(Step):
    """Turns prompts into token ids: BOS, the text, padding on the right."""

    registry_name = "tokenizer_processor"

    def __init__(
        self,
        tokenizer_name: str | None = None,
        max_length: int = 512,
        task_key: str = "task",
        padding_side: str = "right",
        padding: str = "max_length",
        truncation: bool = True,
        allow_truncation: bool = False,
    ) -> None:
        """Take the configuration of LeRobot's step of the same name.

        Args:
            tokenizer_name: hub id, folder or preset of the tokenizer.
            max_length: width that all prompts get.
            task_key: where the prompts are.
            padding_side: "right".
            padding: "max_length".
            truncation: LeRobot's wish to cut; followed only with `allow_truncation`.
            allow_truncation: cut prompts that are too long, else refuse them; kept in the policy's
                `config.json`.

        Raises:
            ConfigError: another way of padding is asked for, or there is no name.
        """
        if (padding_side, padding) != ("right", "max_length") or tokenizer_name is None:
            raise ConfigError(
                f"tokenizer_name={tokenizer_name!r}, padding_side={padding_side!r}, "
                f"padding={padding!r}: expected the name of a tokenizer, 'right' and 'max_length', "
                "as pi0-FAST has them."
            )
        self.tokenizer_name = str(tokenizer_name)
        self.max_length = max_length
        self.task_key = task_key
        self.truncation = truncation
        self.allow_truncation = allow_truncation
        self._stored: Path | None = None

    def config(self) -> dict[str, Any]:
        return {
            "max_length": self.max_length,
            "task_key": self.task_key,
            "padding_side": "right",
            "padding": "max_length",
            "truncation": self.truncation,
            "tokenizer_name": self.tokenizer_name,
        }

    def artifacts(self) -> dict[str, str]:
        return {"tokenizer_name": TOKENIZER_FOLDER}

    def load_assets(
        self, folder: Path, artifacts: Mapping[str, str], overridden: Collection[str]
    ) -> None:
        """Prefer the stored tokenizer over the name in the file, unless the caller gave one."""
        if "tokenizer_name" not in overridden:
            self._stored = stored_tokenizer(folder, artifacts.get("tokenizer_name"))

    def save_assets(self, folder: Path) -> None:
        source = self._stored or tokenizer_folder(self.tokenizer_name, local_only=True)
        copy_tokenizer(source, folder / TOKENIZER_FOLDER)

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """The text tokenizer."""
        return load_text_tokenizer(self._stored or tokenizer_folder(self.tokenizer_name))

    def check(self, entries: Mapping[str, Any]) -> None:
        """Make sure that the tokenizer is there.

        Raises:
            CheckpointError: it is not, or lacks BOS or padding.
        """
        for token in (BOS, PAD):
            if self.tokenizer.find(token) is None:
                raise CheckpointError(
                    f"the tokenizer of {self.tokenizer.source} has no {token!r}: pi0-FAST needs "
                    "PaliGemma's. Pass it with --policy.text_tokenizer_name."
                )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with token ids (batch, max_length) int64 and their mask, bool.

        Raises:
            ProcessingError: a prompt is too long, or holds a token such as `<image>`, which stands
                for no word.
        """
        bos, pad = (self.tokenizer.token_id(token) for token in (BOS, PAD))
        rows = [[bos, *self.tokenizer.encode(text)] for text in batch[self.task_key]]
        self._refuse_images(rows)
        longest = max(range(len(rows)), key=lambda row: len(rows[row]))
        if len(rows[longest]) > self.max_length:
            self._refuse_or_cut(rows, longest, batch[self.task_key][longest])
        ids, mask = pad_rows_to(self.max_length, rows, pad)
        return batch | {LANGUAGE_TOKENS: ids, LANGUAGE_MASK: mask}

    def _refuse_images(self, rows: list[list[int]]) -> None:
        # Behind the vocabulary: the network has no embedding for it.
        for row, ids in enumerate(rows):
            if max(ids) >= self.tokenizer.base_size:
                (token,) = self.tokenizer.pieces([max(ids)])
                raise ProcessingError(
                    f"the prompt of row {row} holds {token!r}, which stands for no word. Write the "
                    "task without it."
                )

    def _refuse_or_cut(self, rows: list[list[int]], longest: int, text: str) -> None:
        if not self.allow_truncation:
            raise ProcessingError(
                f"the prompt of row {longest} has {len(rows[longest])} tokens, more than "
                f"--policy.tokenizer_max_length={self.max_length}: {_shortened(text)}. Raise "
                "--policy.tokenizer_max_length, shorten the task, or give "
                "--policy.allow_truncation=true to cut the prompt's end, the state, off."
            )
        rows[:] = [row[: self.max_length] for row in rows]


def stored_tokenizer(folder: Path, artifact: str | None = None) -> Path | None:
    """Return the folder of a checkpoint's own text tokenizer, None when it has none."""
    stored = folder / (artifact or TOKENIZER_FOLDER)
    return stored if (stored / "tokenizer.json").is_file() else None


def _shortened(text: str, length: int = 60) -> str:
    return repr(text if len(text) <= length else f"{text[:length]}...")
