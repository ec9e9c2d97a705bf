# SPDX-License-Identifier: Apache-2.0
"""Action tokens in the text vocabulary: FAST id t stands at the top, counted downwards.

    text id = text_vocab_size - 1 - skip_tokens - t

With PaliGemma (257152 pieces, 128 skipped `<seg>` pieces) FAST ids 0 .. 1023 take the places of
`<loc1023>` .. `<loc0000>` and the next ones those of rare pieces below. A chunk is written as
"Action: ", its codes, "|". Source: openpi tokenizer.py (FASTTokenizer)@15a9616, LeRobot 0.6.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vlakit.errors import ActionDecodeError, CheckpointError, ProcessingError
from vlakit.processing.text import TextTokenizer

PREFIX, PREFIX_PIECES = "Action: ", ["Action", ":", "▁"]
BOS, EOS, PAD, BAR = "<bos>", "<eos>", "<pad>", "|"

TokenLayout = Literal["lerobot", "openpi"]
OnError = Literal["raise", "reference"]


@dataclass(frozen=True)
class ActionVocabulary:
    """Which text ids are FAST ids, and the fixed tokens around them."""

    text_vocab_size: int
    """Pieces of the text tokenizer's model, added tokens such as `<image>` not counted."""
    num_pieces: int
    """The same, added ones counted: the first id that stands for nothing."""
    skip_tokens: int
    """Pieces at the very top that are left alone (`fast_skip_tokens`)."""
    fast_vocab_size: int
    """FAST ids are 0 .. fast_vocab_size - 1."""
    bos_id: int
    eos_id: int
    pad_id: int
    bar_id: int
    """The end marker "|"."""
    prefix_ids: tuple[int, ...]
    """The pieces of "Action: "."""

    @classmethod
    def from_tokenizer(
        cls, tokenizer: TextTokenizer, *, skip_tokens: int, fast_vocab_size: int
    ) -> ActionVocabulary:
        """Find the fixed tokens in a text tokenizer and check that the FAST ids have room.

        Raises:
            CheckpointError: it does not split "Action: " as PaliGemma's does, lacks a fixed token,
                or the FAST ids would reach below its first piece or cover a fixed token.
        """
        prefix_ids = tokenizer.encode(PREFIX)
        if (found := tokenizer.pieces(prefix_ids)) != PREFIX_PIECES:
            raise CheckpointError(
                f"the tokenizer of {tokenizer.source} splits {PREFIX!r} into {found}, expected "
                f"{PREFIX_PIECES}: pi0-FAST needs PaliGemma's. Pass it with "
                "--policy.text_tokenizer_name."
            )
        bos, eos, pad, bar = (_fixed_id(tokenizer, token) for token in (BOS, EOS, PAD, BAR))
        sizes = tokenizer.base_size, len(tokenizer), skip_tokens, fast_vocab_size
        vocabulary = cls(*sizes, bos, eos, pad, bar, prefix_ids)
        vocabulary._check_room(tokenizer)
        return vocabulary

    def _check_room(self, tokenizer: TextTokenizer) -> None:
        ids = self.head_ids
        fixed = (self.bos_id, self.eos_id, self.pad_id, self.bar_id, *self.prefix_ids)
        covered = sorted({id_ for id_ in fixed if id_ in ids})
        if ids.start < 0 or self.skip_tokens < 0 or covered:
            wrong = f"cover {tokenizer.pieces(covered)}" if covered else "do not fit"
            raise CheckpointError(
                f"{self.fast_vocab_size} FAST ids below the top {self.skip_tokens} of the "
                f"{self.text_vocab_size} pieces of {tokenizer.source} {wrong}: expected free "
                "pieces. Use a smaller FAST vocabulary (--policy.action_tokenizer_name) or "
                "another --policy.fast_skip_tokens."
            )

    @property
    def head_ids(self) -> range:
        """The text ids of all FAST ids, ascending: FAST id t is the last but t."""
        end = self.text_vocab_size - self.skip_tokens
        return range(end - self.fast_vocab_size, end)

    def to_text_ids(self, fast_ids: Sequence[int]) -> list[int]:
        """Return the text ids of FAST ids.

        Raises:
            ProcessingError: an id is outside the FAST vocabulary.
        """
        top = self.head_ids.stop - 1
        if wrong := [id_ for id_ in fast_ids if not 0 <= id_ < self.fast_vocab_size]:
            raise ProcessingError(
                f"FAST id {wrong[0]} is outside the vocabulary, expected 0 .. "
                f"{self.fast_vocab_size - 1}. Encode with the FAST tokenizer of the checkpoint."
            )
        return [top - id_ for id_ in fast_ids]

    def to_fast_ids(self, text_ids: Sequence[int]) -> list[int]:
        """Return the FAST ids of text ids; other pieces fall outside 0 .. fast_vocab_size - 1."""
        top = self.head_ids.stop - 1
        return [top - id_ for id_ in text_ids]

    def training_ids(self, fast_ids: Sequence[int], layout: TokenLayout) -> list[int]:
        """Return the action tokens of one training sequence; BOS only in LeRobot's layout."""
        start = [self.bos_id] if layout == "lerobot" else []
        return [*start, *self.chunk_ids(fast_ids), self.eos_id]

    def chunk_ids(self, fast_ids: Sequence[int]) -> list[int]:
        """Return the text ids of a well-formed chunk: "Action: ", codes, "|"."""
        return [*self.prefix_ids, *self.to_text_ids(fast_ids), self.bar_id]

    def codes(
        self, text_ids: Sequence[int], *, check_prefix: bool, on_error: OnError = "raise"
    ) -> list[int]:
        """Return the FAST ids that generated text ids spell, without the tokens around them.

        What follows the first "|" does not count: rows of a batch go on until the last has ended.

        Args:
            text_ids: of one row, as generated.
            check_prefix: whether "Action: " must be there; it is left out where it is, in any case.
            on_error: "reference" reads malformed ids as LeRobot does: every "Action: " is left out
                wherever it stands, no "|" is needed, and other pieces become FAST ids outside the
                vocabulary. Only parity tests want that.

        Raises:
            ActionDecodeError: with the reason; in the reference's way only for a missing "Action:"
                or an id outside the text vocabulary.
        """
        ids = list(text_ids)
        if on_error == "reference":
            return self._reference_codes(ids, check_prefix)
        prefix = list(self.prefix_ids)
        if ids[: len(prefix)] == prefix:
            ids = ids[len(prefix) :]
        elif check_prefix:
            raise ActionDecodeError(f"starts with {ids[: len(prefix)]}, expected {PREFIX!r}")
        if self.bar_id not in ids:
            raise ActionDecodeError(f"no end marker {BAR!r} in {len(text_ids)} tokens")
        ids = ids[: ids.index(self.bar_id)]
        if strange := [id_ for id_ in ids if id_ not in self.head_ids]:
            raise ActionDecodeError(f"token {strange[0]} among the codes is no action token")
        return self.to_fast_ids(ids)

    def _reference_codes(self, ids: list[int], check_prefix: bool) -> list[int]:
        # Parity: LeRobot checks two of the three pieces, cuts, then deletes the prefix everywhere.
        prefix = list(self.prefix_ids)
        if check_prefix and ids[:2] != prefix[:2]:
            raise ActionDecodeError(f"starts with {ids[:2]}, expected {PREFIX!r}")
        if self.bar_id in ids:
            ids = ids[: ids.index(self.bar_id)]
        kept: list[int] = []
        place = 0
        while place < len(ids):
            if ids[place : place + len(prefix)] == prefix:
                place += len(prefix)
            else:
                kept.append(ids[place])
                place += 1
        if beyond := [id_ for id_ in kept if id_ >= self.num_pieces]:
            raise ActionDecodeError(f"token {beyond[0]} is outside the text vocabulary")
        return self.to_fast_ids(kept)


def _fixed_id(tokenizer: TextTokenizer, token: str) -> int:
    found = tokenizer.find(token)
    if found is None:
        raise CheckpointError(
            f"the tokenizer of {tokenizer.source} has no piece {token!r}: pi0-FAST needs "
            "PaliGemma's. Pass it with --policy.text_tokenizer_name."
        )
    return found
