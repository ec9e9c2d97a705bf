# SPDX-License-Identifier: Apache-2.0
"""From ids to codes: strictly, with the reason of each row that fails, or as the reference does."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from vlakit.processing.fast.spelling import REPLACEMENT, codes_of


class IdSpeller:
    """Spells what ids stand for."""

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        """Take the bytes of every id."""
        # A dictionary refuses negative ids, which a tuple would count from its end.
        self._pieces = dict(enumerate(token_bytes))

    def codes(
        self, ids: Sequence[Sequence[int]], length: int
    ) -> tuple[NDArray[np.int32], dict[int, str]]:
        """Return codes (batch, length), and why some rows have none; theirs are 0."""
        failures: dict[int, str] = {}
        try:
            texts = [self._text(tokens) for tokens in ids]
        except (KeyError, UnicodeDecodeError):
            texts = []
        is_as_expected = len(texts) == len(ids) and set(map(len, texts)) <= {length}
        if not is_as_expected or any(REPLACEMENT in text for text in texts):
            texts, failures = self._row_by_row(ids, length)
        return codes_of(texts).reshape(-1, length), failures

    def _text(self, tokens: Sequence[int]) -> str:
        # One call fetches all pieces; of fewer than two ids it would make no sequence.
        pieces = itemgetter(*tokens)(self._pieces) if len(tokens) > 1 else map(self._piece, tokens)
        return b"".join(pieces).decode("utf-8")

    def _piece(self, token: int) -> bytes:
        return self._pieces[token]

    def _row_by_row(
        self, ids: Sequence[Sequence[int]], length: int
    ) -> tuple[list[str], dict[int, str]]:
        texts: list[str] = []
        failures: dict[int, str] = {}
        for row, tokens in enumerate(ids):
            text = ""
            try:
                text = self._text(tokens)
                if REPLACEMENT in text:
                    failures[row] = "its ids spell U+FFFD, which stands for broken characters"
                elif len(text) != length:
                    failures[row] = f"its ids spell {len(text)} coefficients, not {length}"
            except KeyError as error:
                last = len(self._pieces) - 1
                failures[row] = f"id {error.args[0]} is outside the vocabulary (0 to {last})"
            except UnicodeDecodeError as error:
                failures[row] = f"byte {error.start} of what its ids spell is no valid UTF-8"
            texts.append("\0" * length if row in failures else text)
        return texts, failures

    def lenient_codes(self, tokens: Sequence[int]) -> NDArray[np.int32] | None:
        """Return as many codes as the ids spell, as the reference reads them.

        Ids beyond the vocabulary are skipped, broken characters become U+FFFD; None for a negative
        id, at which the reference gives up.
        """
        if any(token < 0 for token in tokens):
            return None
        spelled = b"".join(self._pieces.get(token, b"") for token in tokens)
        return codes_of([spelled.decode("utf-8", errors="replace")])
