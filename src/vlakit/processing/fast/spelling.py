# SPDX-License-Identifier: Apache-2.0
"""Between coefficients and text: a coefficient c is the character of code c - min_token."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_CODE = 0x10FFFF
SURROGATES = (0xD800, 0xDFFF)
"""Code points that no text can hold."""


def texts_of(codes: NDArray[np.uint32]) -> list[str]:
    """Return one text per row of codes, (batch, length), all of them code points."""
    length = codes.shape[1]
    text = codes.astype("<u4").tobytes().decode("utf-32-le")
    return [text[start : start + length] for start in range(0, len(text), length)]


def codes_of(text: str) -> NDArray[np.int64]:
    """Return the code points of a text, (len(text),)."""
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4").astype(np.int64)


class PieceTable:
    """The bytes of every token, side by side, so that a whole batch is spelled by one gather."""

    def __init__(self, token_bytes: tuple[bytes, ...]) -> None:
        self._bytes = np.frombuffer(b"".join(token_bytes), dtype=np.uint8)
        self._lengths = np.array([len(piece) for piece in token_bytes], dtype=np.int64)
        self._starts = np.cumsum(self._lengths) - self._lengths

    def __len__(self) -> int:
        return len(self._lengths)

    def spell(
        self, ids: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the bytes of all rows in a line, and where each row ends.

        Args:
            ids: of all rows in a line, each in [0, len(self)).
            counts: tokens per row, (batch,).
        """
        lengths = self._lengths[ids]
        ends = np.cumsum(lengths)
        index = np.arange(int(lengths.sum())) + np.repeat(
            self._starts[ids] - ends + lengths, lengths
        )
        row_ends = np.concatenate([[0], ends])[np.cumsum(counts)]
        return self._bytes[index], row_ends
