# SPDX-License-Identifier: Apache-2.0
"""Between codes and text: a coefficient c is the character of code c - min_token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_CODE = 0x10FFFF
SURROGATES = (0xD800, 0xDFFF)
"""Code points that no text can hold."""
REPLACEMENT = "\ufffd"
"""What decoders put for broken characters: spelled or broken, a text does not say."""


def is_character(codes: NDArray[np.int32], *, but_replacement: bool) -> NDArray[np.bool_]:
    """Return which codes are characters, negative ones aside.

    Args:
        codes: of any shape.
        but_replacement: whether U+FFFD counts as none.
    """
    is_one = (codes <= MAX_CODE) & ((codes < SURROGATES[0]) | (codes > SURROGATES[1]))
    return is_one & (codes != ord(REPLACEMENT)) if but_replacement else is_one


def joined_text(codes: NDArray[np.int32]) -> str:
    """Return the text of all codes in a row; they must be characters."""
    return str(np.ascontiguousarray(codes, dtype="<i4").data, "utf-32-le")


def texts_of(codes: NDArray[np.int32]) -> list[str]:
    """Return one text per row of codes, (batch, length)."""
    length = codes.shape[1]
    text = joined_text(codes)
    return [text[start : start + length] for start in range(0, len(text), length)]


def codes_of(texts: Sequence[str]) -> NDArray[np.int32]:
    """Return the codes of all texts in a row."""
    text = "".join(texts)
    try:
        codes = np.frombuffer(text.encode("latin-1"), dtype=np.uint8)
    except UnicodeEncodeError:
        codes = np.frombuffer(text.encode("utf-32-le"), dtype="<i4")
    return codes.astype(np.int32)
