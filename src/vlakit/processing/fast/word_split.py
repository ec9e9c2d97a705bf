# SPDX-License-Identifier: Apache-2.0
"""GPT-2's pattern for words, on arrays of code points.

The pattern (Radford et al. 2019) takes, from left to right, the first that fits of

    's 't 're 've 'm 'll 'd | ?letters | ?digits | ?others | spaces not before a word | spaces

where `?` is one optional space character. So words start where the kind of character changes;
a space character goes with what follows it; and an apostrophe that starts a word takes its ending.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, pre_tokenizers

_OTHER, _LETTER, _DIGIT, _SPACE_CHARACTER, _OTHER_SPACE = range(5)
_LAST_BYTE = 255


def word_starts(codes: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return where words start, the shape of codes: (batch, length), length above 0."""
    kinds = _kinds_of(codes)
    starts = np.ones(codes.shape, dtype=bool)
    np.not_equal(kinds[:, :-1], kinds[:, 1:], out=starts[:, 1:])
    _settle_spaces(kinds, starts)
    _take_endings(codes, starts)
    return starts


def _settle_spaces(kinds: NDArray[np.uint8], starts: NDArray[np.bool_]) -> None:
    """Give a space character to what follows it, and the others of a run to one word."""
    length = kinds.shape[1]
    spaces = np.flatnonzero(kinds >= _SPACE_CHARACTER)
    spaces = spaces[spaces % length != length - 1]
    flat, is_start = kinds.ravel(), starts.ravel()
    goes_on = flat.take(spaces + 1) >= _SPACE_CHARACTER
    takes_next = ~goes_on & (flat.take(spaces) == _SPACE_CHARACTER)
    is_start[spaces[takes_next] + 1] = False
    # Inside a run the last space starts a word, if something else follows.
    inside = spaces[goes_on] + 1
    after = np.minimum(inside + 1, len(flat) - 1)
    is_end = inside % length == length - 1
    is_start[inside] = ~is_end & (flat.take(after) < _SPACE_CHARACTER)


def _take_endings(codes: NDArray[np.int32], starts: NDArray[np.bool_]) -> None:
    """Join an apostrophe that starts a word with its ending, and start a word behind that."""
    length = codes.shape[1]
    apostrophes = np.flatnonzero(codes == ord("'"))
    apostrophes = apostrophes[starts.ravel()[apostrophes]]
    rows, columns = np.divmod(apostrophes, length)
    for ending in ("s", "t", "re", "ve", "m", "ll", "d"):
        fits = columns + len(ending) < length
        for offset, letter in enumerate(ending, start=1):
            there = codes[rows, np.minimum(columns + offset, length - 1)]
            fits &= there == ord(letter)
        starts[rows[fits], columns[fits] + 1] = False
        behind = columns[fits] + len(ending) + 1
        inside = behind < length
        starts[rows[fits][inside], behind[inside]] = True


def _kinds_of(codes: NDArray[np.int32]) -> NDArray[np.uint8]:
    small = np.minimum(codes, _LAST_BYTE).astype(np.uint8)
    table = _kinds(_LAST_BYTE + 1).tobytes()
    # A gather of numpy would first make 8 bytes of every index.
    kinds = np.frombuffer(bytearray(small).translate(table), dtype=np.uint8)
    large = np.flatnonzero(small == _LAST_BYTE)
    if len(large):
        letters = codes.ravel().take(large)
        kinds[large] = _kinds(1 << int(letters.max()).bit_length()).take(letters)
    return kinds.reshape(codes.shape)


@lru_cache(maxsize=4)
def _kinds(limit: int) -> NDArray[np.uint8]:
    """Return the kind of every code point below the limit.

    The tokenizers library is asked, so that both mean the same by a letter.
    """
    kinds = np.full(limit, _OTHER, dtype=np.uint8)
    text = "".join("\0" if 0xD800 <= code <= 0xDFFF else chr(code) for code in range(limit))
    for pattern, kind in ((r"\p{L}", _LETTER), (r"\p{N}", _DIGIT), (r"\s", _OTHER_SPACE)):
        splitter = pre_tokenizers.Split(Regex(f"[^{pattern}]+"), behavior="removed")
        for _, (start, end) in splitter.pre_tokenize_str(text):
            kinds[start:end] = kind
    kinds[ord(" ")] = _SPACE_CHARACTER
    return kinds
