# SPDX-License-Identifier: Apache-2.0
"""FAST (Pertsch et al. 2025, arXiv:2501.09747): an action chunk as a short list of token ids.

    chunk (horizon, action_dim) -> DCT along time -> x scale, rounded -> row by row, lowest
    frequency first -> a character each -> byte-level BPE -> ids

and back. A chunk is expected in normalised units; the tokenizer scales by `scale` only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tokenizers import Tokenizer

from vlakit.errors import ActionDecodeError, CheckpointError, ConfigError, ProcessingError
from vlakit.hub import resolve
from vlakit.processing.fast.bpe_training import Alphabet, symbols_of, train_bpe
from vlakit.processing.fast.byte_symbols import BYTE_SYMBOLS, bytes_of
from vlakit.processing.fast.dct import Float64, inverse_dct, quantized_dct
from vlakit.processing.fast.files import (
    PATTERNS,
    ProcessorSettings,
    read_bpe,
    read_settings,
    write_files,
)
from vlakit.processing.fast.normalizer import FastNormalizer
from vlakit.processing.fast.spelling import MAX_CODE, SURROGATES, PieceTable, codes_of, texts_of

EncodeErrors = Literal["raise", "reference"]
DecodeErrors = Literal["raise", "reference", "relaxed"]


class FastTokenizer:
    """A FAST tokenizer: quantisation settings and a byte-level BPE vocabulary."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        settings: ProcessorSettings,
        normalizer: FastNormalizer | None = None,
    ) -> None:
        """Take the parts; `from_pretrained` and `train` make them."""
        self._tokenizer = tokenizer
        self._settings = settings
        self.normalizer = normalizer
        pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        if [token for _, token in pieces] != list(range(len(pieces))):
            raise CheckpointError(
                f"the vocabulary has {len(pieces)} pieces whose ids are not 0 to "
                f"{len(pieces) - 1}. Fetch or train the tokenizer again."
            )
        self.token_bytes = tuple(bytes_of(piece) for piece, _ in pieces)
        symbols = {piece for piece, _ in pieces}
        self._is_known_byte = np.array([symbol in symbols for symbol in BYTE_SYMBOLS])
        self._table = PieceTable(self.token_bytes)

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
        tokenizer = read_bpe(folder)
        return cls(tokenizer, settings, FastNormalizer.load(folder))

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
        batch = _as_batch(chunks)
        if not len(batch):
            raise ProcessingError("no chunk to fit on; expected at least one.")
        coefficients = quantized_dct(batch, scale)
        min_token, max_token = int(coefficients.min()), int(coefficients.max())
        codes = coefficients - min_token
        _check_spellable(codes)
        if alphabet == "reference" and max_token - min_token > vocab_size:
            raise ConfigError(
                f"coefficients reach from {min_token} to {max_token}, more than the vocab_size "
                f"{vocab_size}. Normalise the chunks, lower scale, or raise vocab_size."
            )
        if alphabet == "bytes" and vocab_size < len(BYTE_SYMBOLS):
            raise ConfigError(
                f"vocab_size is {vocab_size}, expected at least {len(BYTE_SYMBOLS)}: every byte "
                "has an id. Raise --vocab_size."
            )
        bpe = train_bpe(
            texts_of(codes.astype(np.uint32)),
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
        write_files(Path(folder), self._settings, self._tokenizer.to_str(pretty=True))
        if self.normalizer is not None:
            self.normalizer.save(Path(folder))

    def encode(self, chunks: ArrayLike, *, on_error: EncodeErrors = "raise") -> list[list[int]]:
        """Return the ids of every chunk.

        Args:
            chunks: (batch, horizon, action_dim) or (horizon, action_dim), normalised.
            on_error: "raise", or "reference" to lose what the reference loses: coefficients below
                `min_token` become `min_token`, characters outside the vocabulary are dropped.

        Raises:
            ProcessingError: a chunk is not finite or cannot be spelled; the message names its row.
        """
        batch = _as_batch(chunks)
        codes = quantized_dct(batch, self.scale) - self.min_token
        if on_error == "raise":
            self._check_saturation(codes)
        else:
            np.maximum(codes, 0, out=codes)
        _check_spellable(codes)
        whole = codes.astype(np.uint32)
        texts = texts_of(whole)
        if on_error == "raise":
            self._check_alphabet(whole, texts)
        return [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]

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
        coefficients, failures = self._coefficients(ids, horizon * action_dim)
        if failures and on_error == "raise":
            raise _decode_error(failures, len(ids), horizon, action_dim)
        for row in failures:
            coefficients[row] = self._lenient(ids[row], horizon * action_dim, on_error)
        return inverse_dct(coefficients, self.scale, horizon, action_dim)

    def _check_saturation(self, codes: Float64) -> None:
        low = codes < 0
        if low.any():
            row = int(np.argmax(low.any(axis=1)))
            count = int(np.count_nonzero(low.any(axis=1)))
            lowest = int(codes[row].min()) + self.min_token
            raise ProcessingError(
                f"chunk {row}{_and_more(count)}: a coefficient of {lowest} is below the lowest "
                f"that the tokenizer has ({self.min_token}) and would be lost. Check the "
                "normalisation of the actions, or train the tokenizer on data that holds such chunks."
            )

    def _check_alphabet(self, codes: NDArray[np.uint32], texts: Sequence[str]) -> None:
        present = np.flatnonzero(np.bincount(codes.ravel()))
        unknown = [code for code in present if not self._can_spell(int(code))]
        if not unknown:
            return
        rows = np.flatnonzero(np.isin(codes, unknown).any(axis=1))
        row = int(rows[0])
        lost = sorted({int(c) + self.min_token for c in codes[row][np.isin(codes[row], unknown)]})
        raise ProcessingError(
            f"chunk {row}{_and_more(len(rows))}: the vocabulary has no symbol for coefficients "
            f"{lost[:8]}, which would be lost. Train a tokenizer with the alphabet 'bytes', or on "
            "data that holds such chunks."
        )

    def _can_spell(self, code: int) -> bool:
        return bool(self._is_known_byte[list(chr(code).encode("utf-8"))].all())

    def _coefficients(
        self, ids: Sequence[Sequence[int]], length: int
    ) -> tuple[NDArray[np.int64], dict[int, str]]:
        """Return coefficients (batch, length) and the reasons of rows that have none."""
        counts = np.array([len(row) for row in ids], dtype=np.int64)
        flat = np.fromiter(chain.from_iterable(ids), dtype=np.int64, count=int(counts.sum()))
        if not ((flat < 0) | (flat >= self.vocab_size)).any():
            spelled, ends = self._table.spell(flat, counts)
            codes = _codes_if_all_well_formed(spelled, ends, length)
            if codes is not None:
                return codes + self.min_token, {}
        coefficients = np.zeros((len(ids), length), dtype=np.int64)
        failures = {}
        for row, tokens in enumerate(ids):
            codes_or_reason = self._codes_of_row(tokens, length)
            if isinstance(codes_or_reason, str):
                failures[row] = codes_or_reason
            else:
                coefficients[row] = codes_or_reason + self.min_token
        return coefficients, failures

    def _codes_of_row(self, tokens: Sequence[int], length: int) -> NDArray[np.int64] | str:
        outside = [int(token) for token in tokens if not 0 <= token < self.vocab_size]
        if outside:
            return f"id {outside[0]} is outside the vocabulary (0 to {self.vocab_size - 1})"
        try:
            text = b"".join(self.token_bytes[token] for token in tokens).decode("utf-8")
        except UnicodeDecodeError as error:
            return f"byte {error.start} of what its ids spell is no valid UTF-8"
        if len(text) != length:
            return f"its ids spell {len(text)} coefficients, not {length}"
        return codes_of(text)

    def _lenient(
        self, tokens: Sequence[int], length: int, on_error: DecodeErrors
    ) -> NDArray[np.int64]:
        """Return what the reference makes of a row that spells no chunk, (length,)."""
        zeros = np.zeros(length, dtype=np.int64)
        if any(token < 0 for token in tokens):
            return zeros
        spelled = b"".join(self.token_bytes[token] for token in tokens if token < self.vocab_size)
        coefficients = codes_of(spelled.decode("utf-8", errors="replace")) + self.min_token
        if on_error == "relaxed":
            zeros[: len(coefficients)] = coefficients[:length]
            return zeros
        return coefficients if len(coefficients) == length else zeros


def _as_batch(chunks: ArrayLike) -> Float64:
    batch = np.asarray(chunks, dtype=np.float64)
    if batch.ndim == 2:
        batch = batch[None]
    if batch.ndim != 3 or 0 in batch.shape[1:]:
        raise ProcessingError(
            f"chunks have the shape {batch.shape}; expected (batch, horizon, action_dim) or "
            "(horizon, action_dim)."
        )
    finite = np.isfinite(batch).all(axis=(1, 2))
    if not finite.all():
        rows = np.flatnonzero(~finite)
        raise ProcessingError(
            f"chunk {rows[0]}{_and_more(len(rows))} holds NaN or infinity; expected finite "
            "numbers. Look for such values in the dataset's actions and statistics."
        )
    return batch


def _check_spellable(codes: Float64) -> None:
    """Raise for whole numbers that are no code points."""
    bad = (codes > MAX_CODE) | ((codes >= SURROGATES[0]) & (codes <= SURROGATES[1]))
    if bad.any():
        rows = np.flatnonzero(bad.any(axis=1))
        raise ProcessingError(
            f"chunk {rows[0]}{_and_more(len(rows))} has coefficients that no character stands for: "
            "its values are thousands of units large. Check the normalisation of the actions."
        )


def _codes_if_all_well_formed(
    spelled: NDArray[np.uint8], ends: NDArray[np.int64], length: int
) -> NDArray[np.int64] | None:
    """Return code points (batch, length), or None unless every row spells so many."""
    starts_character = (spelled & 0xC0) != 0x80
    before = np.concatenate([[0], np.cumsum(starts_character)])
    if (np.diff(before[np.concatenate([[0], ends])]) != length).any():
        return None
    # A row that begins inside a character would lend its first bytes to the row before.
    begins = np.concatenate([[0], ends])[:-1]
    if len(ends) and not starts_character[begins].all():
        return None
    try:
        text = spelled.tobytes().decode("utf-8")
    except UnicodeDecodeError:
        return None
    return codes_of(text).reshape(len(ends), length)


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


def _and_more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""
