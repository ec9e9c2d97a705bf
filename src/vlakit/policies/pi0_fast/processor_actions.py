# SPDX-License-Identifier: Apache-2.0
"""Action chunks as tokens of the text vocabulary, padded to one length."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vlakit.errors import ConfigError, ProcessingError
from vlakit.features import ACTION, ACTION_TOKEN_MASK, ACTION_TOKENS
from vlakit.files import folder_stamp
from vlakit.hub import resolve
from vlakit.policies.pi0_fast.action_tokens import ActionVocabulary, TokenLayout
from vlakit.policies.pi0_fast.processor_text import (
    load_text_tokenizer,
    stored_tokenizer,
    tokenizer_folder,
)
from vlakit.processing.fast.files import PATTERNS
from vlakit.processing.fast.tokenizer import FastTokenizer
from vlakit.processing.padding import pad_rows_to
from vlakit.processing.step import Step

ACTION_TOKENIZER_FOLDER = "action_tokenizer"
"""Folder of a checkpoint with its FAST tokenizer."""

logger = logging.getLogger(__name__)


def load_fast_tokenizer(folder: Path) -> FastTokenizer:
    """Return the tokenizer of a folder; the processors and the policy share one."""
    return _load(folder, folder_stamp(folder, PATTERNS))


@lru_cache(maxsize=4)
def _load(folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> FastTokenizer:
    # The stamp tells a tokenizer that was fitted anew into the same folder from the one before.
    return FastTokenizer.from_pretrained(folder)


def fast_tokenizer_folder(name: str, *, local_only: bool = False) -> Path:
    """Return the folder that the name of a FAST tokenizer stands for.

    Raises:
        CheckpointError: it cannot be found.
    """
    return resolve(name, patterns=PATTERNS, local_only=local_only)


def stored_fast_tokenizer(folder: Path, artifact: str | None = None) -> Path | None:
    """Return the folder of a checkpoint's own FAST tokenizer, None when it has none."""
    stored = folder / (artifact or ACTION_TOKENIZER_FOLDER)
    return stored if (stored / "processor_config.json").is_file() else None


class ActionTokens(Step):
    """Encodes action chunks with a FAST tokenizer and puts the fixed tokens around them."""

    registry_name = "action_tokenizer_processor"

    def __init__(
        self,
        action_tokenizer_name: str,
        max_action_tokens: int = 256,
        fast_skip_tokens: int = 128,
        paligemma_tokenizer_name: str = "google/paligemma-3b-pt-224",
        trust_remote_code: bool = True,
        allow_truncation: bool = False,
        token_layout: TokenLayout = "lerobot",
        chunk_size: int | None = None,
    ) -> None:
        """Take the configuration of LeRobot's step of the same name.

        Args:
            action_tokenizer_name: hub id or folder of the FAST tokenizer.
            max_action_tokens: width that all chunks get.
            fast_skip_tokens: ids at the end of the text vocabulary that stay free.
            paligemma_tokenizer_name: hub id, folder or preset of the text tokenizer.
            trust_remote_code: kept for LeRobot; no code of a checkpoint is ever run here.
            allow_truncation: cut chunks that are too long, else refuse them; kept in the policy's
                `config.json`, as the next two.
            token_layout: which tokens stand around the codes.
            chunk_size: actions of a chunk; None takes any number.
        """
        self.action_tokenizer_name = str(action_tokenizer_name)
        self.max_action_tokens = max_action_tokens
        self.fast_skip_tokens = fast_skip_tokens
        self.paligemma_tokenizer_name = str(paligemma_tokenizer_name)
        self.trust_remote_code = trust_remote_code
        self.allow_truncation = allow_truncation
        self.token_layout: TokenLayout = token_layout
        self.chunk_size = chunk_size
        self.lengths: Counter[int] = Counter()
        """How many chunks of each length were seen, fixed tokens included."""
        self._stored: Path | None = None
        self._stored_text: Path | None = None
        self._has_reported_loss = False

    def config(self) -> dict[str, Any]:
        return {
            "trust_remote_code": self.trust_remote_code,
            "max_action_tokens": self.max_action_tokens,
            "fast_skip_tokens": self.fast_skip_tokens,
            "paligemma_tokenizer_name": self.paligemma_tokenizer_name,
            "action_tokenizer_name": self.action_tokenizer_name,
        }

    def artifacts(self) -> dict[str, str]:
        return {"action_tokenizer_name": ACTION_TOKENIZER_FOLDER}

    def load_assets(
        self, folder: Path, artifacts: Mapping[str, str], overridden: Collection[str]
    ) -> None:
        """Prefer the stored tokenizers over the names in the file, unless the caller gave some."""
        if "action_tokenizer_name" not in overridden:
            artifact = artifacts.get("action_tokenizer_name")
            self._stored = stored_fast_tokenizer(folder, artifact)
        if "paligemma_tokenizer_name" not in overridden:
            artifact = artifacts.get("paligemma_tokenizer_name")
            self._stored_text = stored_tokenizer(folder, artifact)

    def save_assets(self, folder: Path) -> None:
        tokenizer: FastTokenizer | None = vars(self).get("tokenizer")
        if tokenizer is None:  # the one in use, if there is one: its folder may have changed since
            name = self.action_tokenizer_name
            tokenizer = load_fast_tokenizer(
                self._stored or fast_tokenizer_folder(name, local_only=True)
            )
        tokenizer.save_pretrained(folder / ACTION_TOKENIZER_FOLDER)

    @cached_property
    def tokenizer(self) -> FastTokenizer:
        """The FAST tokenizer."""
        return load_fast_tokenizer(
            self._stored or fast_tokenizer_folder(self.action_tokenizer_name)
        )

    @cached_property
    def vocabulary(self) -> ActionVocabulary:
        """Where the FAST ids are in the text vocabulary."""
        folder = self._stored_text or tokenizer_folder(self.paligemma_tokenizer_name)
        return ActionVocabulary.from_tokenizer(
            load_text_tokenizer(folder),
            skip_tokens=self.fast_skip_tokens,
            fast_vocab_size=self.tokenizer.vocab_size,
        )

    def check(self, entries: Mapping[str, Any]) -> None:
        """Make sure that both tokenizers are there and fit each other.

        Raises:
            CheckpointError: they are not, or do not.
        """
        _ = self.vocabulary

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with action tokens and their mask, (batch, max_action_tokens).

        A batch without actions passes unchanged.

        Raises:
            ConfigError: a chunk is too long.
            ProcessingError: a chunk is not finite, or has another horizon.
        """
        action: Tensor | None = batch.get(ACTION)
        if action is None:
            return batch
        rows = self.rows(action)
        if max(map(len, rows)) > self.max_action_tokens:
            self._refuse_or_cut(rows)
        ids, mask = pad_rows_to(self.max_action_tokens, rows, self.vocabulary.pad_id)
        return batch | {ACTION_TOKENS: ids, ACTION_TOKEN_MASK: mask}

    def rows(self, action: Tensor) -> list[list[int]]:
        """Return the tokens of chunks (batch, horizon, action_dim), of any length.

        Raises:
            ProcessingError: a chunk is not finite, or has another horizon.
        """
        if action.ndim != 3 or self.chunk_size not in (None, action.shape[1]):
            horizon = "horizon" if self.chunk_size is None else f"chunk_size={self.chunk_size}"
            raise ProcessingError(
                f"{ACTION!r} has the shape {list(action.shape)}; expected (batch, {horizon}, "
                "action_dim). Load the dataset with that many delta_timestamps."
            )
        chunks = action.detach().cpu().double().numpy()
        rows = [
            self.vocabulary.training_ids(ids, self.token_layout) for ids in self._encode(chunks)
        ]
        self.lengths.update(map(len, rows))
        return rows

    def _encode(self, chunks: NDArray[np.float64]) -> list[list[int]]:
        """Return the FAST ids; what the tokenizer cannot spell is lost, as in LeRobot, but said.

        A run of days does not end at one odd chunk; `vlakit train` counts them before it starts.
        """
        try:
            return self.tokenizer.encode(chunks)
        except ProcessingError as error:
            ids = self.tokenizer.encode(chunks, on_error="reference")
            if not self._has_reported_loss:
                logger.warning("actions are encoded with losses (this is said once): %s", error)
            self._has_reported_loss = True
            return ids

    def _refuse_or_cut(self, rows: list[list[int]]) -> None:
        if not self.allow_truncation:
            raise ConfigError(too_long_message(self.lengths, self.max_action_tokens))
        rows[:] = [row[: self.max_action_tokens] for row in rows]


def too_long_message(lengths: Counter[int], limit: int) -> str:
    """Return what to say when a chunk has more tokens than there is room for."""
    total = lengths.total()
    share = sum(count for length, count in lengths.items() if length > limit) / total
    return (
        f"an action chunk has {max(lengths)} tokens, more than --policy.max_action_tokens={limit} "
        f"({share:.1%} of {total} chunks have; p99 is {percentile(lengths, 0.99)}). Raise "
        "--policy.max_action_tokens, train a FAST tokenizer on this dataset (vlakit "
        "train-tokenizer), or give --policy.allow_truncation=true to cut chunks as LeRobot does."
    )


def percentile(counts: Counter[int], share: float) -> int:
    """Return the smallest value that at least this share of the counted ones does not exceed."""
    values: Sequence[int] = sorted(counts)
    needed, seen = share * counts.total(), 0
    for value in values:
        seen += counts[value]
        if seen >= needed:
            return value
    return values[-1]
