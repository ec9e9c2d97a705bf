# SPDX-License-Identifier: Apache-2.0
"""The alphabet of byte-level BPE: one printable character for each of the 256 bytes.

GPT-2's table (Radford et al. 2019): printable Latin-1 characters stand for themselves, the other
bytes, in order, for the characters from U+0100 on.
"""

from __future__ import annotations


def _table() -> tuple[str, ...]:
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    codes = {byte: byte for byte in printable} | {b: 256 + n for n, b in enumerate(others)}
    return tuple(chr(codes[byte]) for byte in range(256))


BYTE_SYMBOLS: tuple[str, ...] = _table()
"""Byte -> character."""

_BYTE_OF = {symbol: byte for byte, symbol in enumerate(BYTE_SYMBOLS)}


def bytes_of(piece: str) -> bytes:
    """Return the bytes that a vocabulary piece spells.

    A piece with a character outside the table spells its own UTF-8, as in the reference.
    """
    if all(character in _BYTE_OF for character in piece):
        return bytes(_BYTE_OF[character] for character in piece)
    return piece.encode("utf-8")
