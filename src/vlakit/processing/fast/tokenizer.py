# SPDX-License-Identifier: Apache-2.0
"""FAST (Pertsch et al. 2025, arXiv:2501.09747): an action chunk as a short list of token ids.

    chunk (horizon, action_dim) -> DCT along time -> x scale, rounded -> row by row, lowest
    frequency first -> a character each -> byte-level BPE -> ids

and back. A chunk is expected in normalised units; the tokenizer scales by `scale` only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlakit.errors import ActionDecodeError, ConfigError, ProcessingError
from vlakit.hub import resolve
from vlakit.processing.fast.bpe import ByteLevelBpe
from vlakit.processing.fast.bpe_encoder import BpeEncoder
from vlakit.processing.fast.bpe_training import Alphabet, symbols_of, train_bpe
from vlakit.processing.fast.byte_symbols import BYTE_SYMBOLS
from vlakit.processing.fast.chunk_checks import (
    are_characters,
    as_batch,
    check_characters,
    first_row,
)
from vlakit.processing.fast.dct import Float64, inverse_dct, quantized_dct
from vlakit.processing.fast.files import (
    PATTERNS,
    ProcessorSettings,
    read_bpe,
    read_settings,
    write_files,
)
from vlakit.processing.fast.id_speller import IdSpeller
from vlakit.processing.fast.normalizer import NORMALIZER_FILE, FastNormalizer
from vlakit.processing.fast.spelling import (
    texts_of,
)

EncodeErrors = Literal["raise", "reference"]
DecodeErrors = Literal["raise", "reference", "relaxed"]

_BLOCK_NUMBERS = 1 << 20
"""Numbers encoded at a time: enough to be worth numpy's calls, few enough for a core's cache."""


class FastTokenizer:
    """A FAST tokenizer: quantisation settings and a byte-level BPE vocabulary."""

    def __init__(
        self,
        bpe: ByteLevelBpe,
        settings: ProcessorSettings,
        normalizer: FastNormalizer | None = None,
    ) -> None:
        """Take the parts; `from_pretrained` and `train` make them."""
        self._bpe = bpe
        self._settings = settings
        self.normalizer = normalizer
        """What the tokenizer was fitted on; None where that is not known."""
        self.token_bytes = bpe.token_bytes()
        """The bytes that each id spells."""
        self._speller = IdSpeller(self.token_bytes)

    @cached_property
    def _encoder(self) -> BpeEncoder:
        return BpeEncoder(self._bpe)

    @property
    def scale(self) -> float:
        """Quantisation steps per unit: a coefficient is off by at most 0.5 / scale."""
        return self._settings.scale

    @property
    def min_token(self) -> int:
        """The lowest coefficient that has a character."""
        return self._settings.min_token

    @property
    def horizon(self) -> int | None:
        """Time steps of the chunks it was fitted on, if they are known."""
        return self._settings.time_horizon

    @property
    def action_dim(self) -> int | None:
        """Numbers per time step of the chunks it was fitted on, if they are known."""
        return self._settings.action_dim

    @property
    def vocab_size(self) -> int:
        """Number of ids, 0 to vocab_size - 1."""
        return len(self.token_bytes)

    @classmethod
    def from_pretrained(
        cls,
        path_or_repo_id: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
    ) -> Self:
        """Load a tokenizer from a folder or a hub repository; no code of theirs is run.

        Args:
            path_or_repo_id: such as `lerobot/fast-action-tokenizer`.
            revision: branch, tag or commit of a hub repository.
            token: hub token; None takes the one of the login.

        Raises:
            CheckpointError: it cannot be found, is damaged, or is no FAST tokenizer.
        """
        folder = resolve(path_or_repo_id, revision=revision, token=token, patterns=PATTERNS)
        settings = read_settings(folder)
        return cls(read_bpe(folder), settings, FastNormalizer.load(folder))

    @classmethod
    def train(
        cls,
        chunks: ArrayLike,
        *,
        vocab_size: int = 1024,
        scale: float = 10.0,
        regex_split: bool = True,
        alphabet: Alphabet = "bytes",
    ) -> Self:
        """Fit a tokenizer; the same chunks, in any order, give the same one.

        Args:
            chunks: (batch, horizon, action_dim), normalised and finite.
            vocab_size: number of ids.
            scale: quantisation steps per unit.
            regex_split: cut by GPT-2's pattern first, as the reference does; False gives fewer
                tokens, and loads in every reader all the same.
            alphabet: "bytes" can encode whatever comes; "reference" is as the reference fits.

        Raises:
            ProcessingError: the chunks are no such array, or not finite.
            ConfigError: the vocabulary has no room for the alphabet.
        """
        batch = as_batch(chunks)
        if not len(batch):
            raise ProcessingError("no chunk to fit on; expected at least one.")
        if not 0 < scale < float("inf"):
            raise ConfigError(f"scale is {scale}, expected a number above 0 (--scale).")
        codes = quantized_dct(batch, scale)
        min_token, max_token = int(codes.min()), int(codes.max())
        codes -= min_token
        check_characters(codes, strictly=alphabet == "bytes")
        _check_room(vocab_size, alphabet, min_token, max_token)
        bpe = train_bpe(
            texts_of(codes),
            vocab_size=vocab_size,
            regex_split=regex_split,
            symbols=symbols_of(alphabet, max_token - min_token),
        )
        settings = ProcessorSettings(
            scale=float(scale),
            vocab_size=vocab_size,
            min_token=min_token,
            time_horizon=batch.shape[1],
            action_dim=batch.shape[2],
        )
        return cls(bpe, settings)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the tokenizer so that it loads here and in transformers 4 and 5."""
        write_files(Path(folder), self._settings, self._bpe)
        if self.normalizer is None:
            # One from another tokenizer in the same folder would be taken for ours.
            (Path(folder) / NORMALIZER_FILE).unlink(missing_ok=True)
        else:
            self.normalizer.save(Path(folder))

    def encode(self, chunks: ArrayLike, *, on_error: EncodeErrors = "raise") -> list[list[int]]:
        """Return the ids of every chunk.

        Args:
            chunks: (batch, horizon, action_dim) or (horizon, action_dim), normalised.
            on_error: "raise", or "reference" to lose what the reference loses: coefficients below
                `min_token` become `min_token`, bytes outside the vocabulary are dropped.

        Raises:
            ProcessingError: a chunk is not finite or cannot be spelled; the message names its row.
        """
        batch = as_batch(chunks)
        rows = max(1, _BLOCK_NUMBERS // (batch.shape[1] * batch.shape[2]))
        ids: list[list[int]] = []
        for start in range(0, len(batch), rows):
            codes = quantized_dct(batch[start : start + rows], self.scale)
            codes -= self.min_token
            if on_error == "reference":
                np.maximum(codes, 0, out=codes)
            if self._loses_something(codes, on_error):
                self._refuse(batch)
            ids += self._encoder(codes)
        return ids

    def _loses_something(self, codes: NDArray[np.int32], on_error: EncodeErrors) -> bool:
        if codes.min() < 0 or not are_characters(codes, strictly=on_error == "raise"):
            return True
        return on_error == "raise" and bool(self._encoder.unknown_codes(codes))

    def _refuse(self, batch: NDArray) -> None:
        """Raise for what is wrong with the first row of a batch that has something wrong."""
        codes = quantized_dct(batch, self.scale) - self.min_token
        check_characters(codes, strictly=True)
        if codes.min() < 0:
            row, what = first_row(codes < 0)
            raise ProcessingError(
                f"{what}: a coefficient of {codes[row].min() + self.min_token} is below the lowest "
                f"that the tokenizer has ({self.min_token}) and would be lost. Check the "
                "normalisation of the actions, or train a tokenizer on data with such chunks."
            )
        unknown = self._encoder.unknown_codes(codes)
        is_unknown = np.isin(codes, unknown)
        row, what = first_row(is_unknown)
        lost = sorted({int(code) + self.min_token for code in codes[row][is_unknown[row]]})
        raise ProcessingError(
            f"{what}: the vocabulary has no symbol for the coefficients {lost[:8]}, which would be "
            "lost. Train a tokenizer that has all bytes (vlakit train-tokenizer)."
        )

    def decode(
        self,
        ids: Sequence[Sequence[int]],
        *,
        horizon: int | None = None,
        action_dim: int | None = None,
        on_error: DecodeErrors = "raise",
    ) -> Float64:
        """Return the chunks (batch, horizon, action_dim) that lists of ids spell.

        Args:
            ids: one list per chunk.
            horizon: time steps; None takes the stored ones.
            action_dim: numbers per step; None takes the stored ones.
            on_error: "raise"; "reference" for zeros where a row spells no chunk, as the reference's
                tokenizer does; "relaxed" to cut or fill such rows up with zeros first, as LeRobot's
                policy does. The lenient ways skip ids beyond the vocabulary.

        Raises:
            ActionDecodeError: rows do not spell a chunk; `failures` has the reason of each.
            ConfigError: neither given nor stored are the sizes of a chunk.
        """
        horizon = _chosen("horizon", horizon, self.horizon)
        action_dim = _chosen("action_dim", action_dim, self.action_dim)
        length = horizon * action_dim
        coefficients, failures = self._speller.codes(ids, length)
        if failures and on_error == "raise":
            raise _decode_error(failures, len(ids), horizon, action_dim)
        coefficients += self.min_token
        for row in failures:
            coefficients[row] = self._lenient(ids[row], length, on_error)
        return inverse_dct(coefficients, self.scale, horizon, action_dim)

    def _lenient(
        self, tokens: Sequence[int], length: int, on_error: DecodeErrors
    ) -> NDArray[np.int32]:
        """Return the coefficients (length,) that the reference makes of a row that spells none."""
        zeros = np.zeros(length, dtype=np.int32)
        codes = self._speller.lenient_codes(tokens)
        if codes is None or (on_error == "reference" and len(codes) != length):
            return zeros
        zeros[: len(codes)] = codes[:length] + self.min_token
        return zeros


def _check_room(vocab_size: int, alphabet: Alphabet, min_token: int, max_token: int) -> None:
    if alphabet == "bytes" and vocab_size < len(BYTE_SYMBOLS):
        raise ConfigError(
            f"vocab_size is {vocab_size}, expected at least {len(BYTE_SYMBOLS)}: every byte has an "
            "id. Raise --vocab_size."
        )
    if alphabet == "reference" and max_token - min_token > vocab_size:
        raise ConfigError(
            f"coefficients reach from {min_token} to {max_token}, more than the vocab_size "
            f"{vocab_size}. Normalise the chunks, lower the scale, or raise --vocab_size."
        )


def _chosen(name: str, given: int | None, stored: int | None) -> int:
    value = stored if given is None else given
    if value is None:
        raise ConfigError(
            f"the {name} of a chunk is not stored with this tokenizer; pass {name}=... to decode."
        )
    if value < 1:
        raise ConfigError(f"{name} is {value}, expected at least 1.")
    return value


def _decode_error(
    failures: Mapping[int, str], batch: int, horizon: int, action_dim: int
) -> ActionDecodeError:
    row, reason = next(iter(failures.items()))
    return ActionDecodeError(
        f"{len(failures)} of {batch} rows spell no action chunk of {horizon} x {action_dim}; "
        f"row {row}: {reason}. Decode with --policy.decoding=constrained, which cannot fail.",
        failures,
    )
