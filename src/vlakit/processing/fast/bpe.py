# SPDX-License-Identifier: Apache-2.0
"""Byte-level BPE (Sennrich, Haddow and Birch 2016) as FAST uses it, in the tokenizers library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors


def byte_level_bpe(
    vocab: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    *,
    regex_split: bool,
    ignore_merges: bool = False,
) -> Tokenizer:
    """Return a tokenizer.

    Args:
        vocab: piece -> id, of byte symbols.
        merges: pairs of pieces, first ones first.
        regex_split: cut texts by GPT-2's pattern before merging.
        ignore_merges: take a whole word that is in the vocabulary as it is.
    """
    model = models.BPE(vocab=dict(vocab), merges=list(merges), ignore_merges=ignore_merges)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=regex_split
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer
