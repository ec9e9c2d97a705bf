# SPDX-License-Identifier: Apache-2.0
"""The two tokenizers of a policy: which ones they are, and from FAST ids back to actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlakit.errors import ActionDecodeError, CheckpointError, ConfigError
from vlakit.policies.pi0_fast.action_tokens import ActionVocabulary
from vlakit.policies.pi0_fast.config import PI0FastConfig
from vlakit.policies.pi0_fast.processor_actions import (
    fast_tokenizer_folder,
    load_fast_tokenizer,
    stored_fast_tokenizer,
)
from vlakit.policies.pi0_fast.processor_text import (
    load_text_tokenizer,
    stored_tokenizer,
    tokenizer_folder,
)
from vlakit.policies.processors import Origin
from vlakit.processing.fast.tokenizer import FastTokenizer


class ActionCodec:
    """Finds the tokenizers when they are first needed: training reads none."""

    def __init__(self, config: PI0FastConfig, origin: Origin | None, num_rows: int) -> None:
        """Take where to look.

        Args:
            config: names the tokenizers.
            origin: the checkpoint whose own tokenizers win over names that were not changed.
            num_rows: rows of the network's vocabulary.
        """
        self._config, self._origin, self._num_rows = config, origin, num_rows

    @cached_property
    def fast_tokenizer(self) -> FastTokenizer:
        """The tokenizer of action chunks."""
        stored = self._stored("action_tokenizer_name", stored_fast_tokenizer)
        name = self._config.action_tokenizer_name
        return load_fast_tokenizer(stored or fast_tokenizer_folder(name))

    @cached_property
    def vocabulary(self) -> ActionVocabulary:
        """Where the FAST ids are in the text vocabulary.

        Raises:
            CheckpointError: the two tokenizers do not fit each other, or the network.
        """
        stored = self._stored("text_tokenizer_name", stored_tokenizer)
        name = self._config.text_tokenizer_name
        tokenizer = load_text_tokenizer(stored or tokenizer_folder(name))
        if tokenizer.base_size > self._num_rows:
            raise CheckpointError(
                f"the tokenizer of {tokenizer.source} has {tokenizer.base_size} pieces, the "
                f"network has rows for {self._num_rows}. Pass the tokenizer that belongs to it "
                "with --policy.text_tokenizer_name."
            )
        return ActionVocabulary.from_tokenizer(
            tokenizer,
            skip_tokens=self._config.fast_skip_tokens,
            fast_vocab_size=self.fast_tokenizer.vocab_size,
        )

    def _stored(self, setting: str, find: Callable[[Path], Path | None]) -> Path | None:
        """Return the folder of the checkpoint's own tokenizer, None where another was asked for."""
        if self._origin is None or setting in self._origin.changes:
            return None
        return find(self._origin.folder)

    def decode(self, codes: Sequence[Sequence[int]]) -> tuple[NDArray[np.float64], dict[int, str]]:
        """Return chunks (batch, chunk_size, action_dim), NaN in rows that spell none, and why."""
        horizon, action_dim = self._config.chunk_size, self._config.action_dim
        sizes = {"horizon": horizon, "action_dim": action_dim}
        try:
            return self.fast_tokenizer.decode(codes, **sizes), {}
        except ActionDecodeError as error:
            failures = error.failures
        chunks = np.full((len(codes), horizon, action_dim), np.nan)
        good = [row for row in range(len(codes)) if row not in failures]
        if good:
            chunks[good] = self.fast_tokenizer.decode([codes[row] for row in good], **sizes)
        return chunks, failures

    def refuse_foreign_vocabulary(self) -> None:
        """Refuse to decode with another FAST vocabulary than the weights were trained with.

        Raises:
            ConfigError: the two differ.
        """
        if self._origin is None or "action_tokenizer_name" not in self._origin.changes:
            return
        stored = stored_fast_tokenizer(self._origin.folder)
        if stored is None:
            return
        own, given = load_fast_tokenizer(stored), self.fast_tokenizer
        if _meaning(own) != _meaning(given):
            raise ConfigError(
                f"--policy.action_tokenizer_name={self._config.action_tokenizer_name} has another "
                f"vocabulary ({_described(given)}) than the checkpoint {self._origin.folder} was "
                f"trained with ({_described(own)}). Leave it out, or train with it first."
            )


def _meaning(tokenizer: FastTokenizer) -> tuple[tuple[bytes, ...], int, float]:
    return tokenizer.token_bytes, tokenizer.min_token, tokenizer.scale


def _described(tokenizer: FastTokenizer) -> str:
    return (
        f"{tokenizer.vocab_size} tokens, scale {tokenizer.scale:g}, lowest coefficient "
        f"{tokenizer.min_token}"
    )
