# SPDX-License-Identifier: Apache-2.0
"""Text to token ids: the chat template, rendered by us, and a cached `tokenizers` tokenizer.

The same renderer serves training and inference, so a policy is asked in the words it learnt from.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from vlakit.errors import CheckpointError
from vlakit.files import read_json

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
VISION_START, IMAGE_PAD, VISION_END = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"
PAD = "<|endoftext|>"
DEFAULT_SYSTEM = "You are a helpful assistant."

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template.json", "chat_template.jinja"),
    *("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"),
)
"""What travels with a checkpoint, so that it loads with the network off, in LeRobot as well."""

_CACHED_TEXTS = 8192

Part = str | None
"""A piece of a message: text, or None for one image."""
Message = tuple[str, Sequence[Part]]
"""A role ('system', 'user', 'assistant') and what it says."""


def render_conversation(messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
    """Return the conversation as Qwen2.5-VL's chat template writes it.

    Every image stands as one `<|image_pad|>` between its vision marks; `expand_images` repeats it.
    A conversation that does not open with a system message gets Qwen's default one.
    """
    text = ""
    if messages and messages[0][0] != "system":
        text += f"{IM_START}system\n{DEFAULT_SYSTEM}{IM_END}\n"
    image = f"{VISION_START}{IMAGE_PAD}{VISION_END}"
    for role, parts in messages:
        content = "".join(image if part is None else part for part in parts)
        text += f"{IM_START}{role}\n{content}{IM_END}\n"
    return text + (f"{IM_START}assistant\n" if add_generation_prompt else "")


class TextTokenizer:
    """A `tokenizer.json` with special tokens added at run time, and a cache of encoded texts."""

    def __init__(
        self, tokenizer: Tokenizer, source: str, extra_special_tokens: Sequence[str]
    ) -> None:
        self.source = source
        self._tokenizer = tokenizer
        # Tokens that are there already keep their id: upstream checkpoints carry EO-1's.
        tokenizer.add_special_tokens(list(extra_special_tokens))
        self._encode = lru_cache(maxsize=_CACHED_TEXTS)(self._encode_uncached)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_encode"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._encode = lru_cache(maxsize=_CACHED_TEXTS)(self._encode_uncached)

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        extra_special_tokens: Sequence[str] = (),
        *,
        flag: str = "vlm_base",
    ) -> TextTokenizer:
        """Read the tokenizer of a local folder; hub names are resolved by the caller.

        Args:
            folder: the folder.
            extra_special_tokens: added where they are not there.
            flag: the policy's setting that names the tokenizer, for the message.

        Raises:
            CheckpointError: `tokenizer.json` is missing or damaged.
        """
        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(
                f"{folder} has no tokenizer.json: expected the folder of a text tokenizer. Pass "
                f"{flag}=<folder or hub id> (--policy.{flag})."
            )
        text = path.read_text(encoding="utf-8")
        content = _tokenizer_json(text, path)
        if _drop_plain_tokens(content, Path(folder) / "tokenizer_config.json"):
            text = json.dumps(content)
        return cls(Tokenizer.from_str(text), str(folder), extra_special_tokens)

    def __len__(self) -> int:
        """Return the number of tokens, special ones included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of the text; special tokens in it are recognised, none is added."""
        return self._encode(text)

    def _encode_uncached(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def token_id(self, token: str) -> int:
        """Return the id of a special token.

        Raises:
            CheckpointError: the tokenizer does not have it.
        """
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise CheckpointError(
                f"the tokenizer of {self.source} has no token {token!r}: expected a Qwen2.5-VL "
                "tokenizer. Pass vlm_base=<folder or hub id> (--policy.vlm_base)."
            )
        return found

    @property
    def base_size(self) -> int:
        """Number of tokens of the model itself, added ones not counted."""
        return self._tokenizer.get_vocab_size(with_added_tokens=False)

    def find(self, token: str) -> int | None:
        """Return the id of a token, or None when the vocabulary does not have it."""
        return self._tokenizer.token_to_id(token)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the vocabulary's piece of every id."""
        return [str(self._tokenizer.id_to_token(id_)) for id_ in ids]

    def check_ids(
        self, tokens: Sequence[str], vocab_size: int | None, expected: Mapping[str, int]
    ) -> None:
        """Make sure that tokens have a row in the embedding and the ids a checkpoint states.

        Raises:
            CheckpointError: an id lies outside the embedding, or differs from the stated one.
        """
        for token in tokens:
            found = self.token_id(token)
            if vocab_size is not None and found >= vocab_size:
                raise CheckpointError(
                    f"{token!r} has id {found} in the tokenizer of {self.source}, the embedding "
                    f"has {vocab_size} rows. Use the tokenizer that belongs to the backbone."
                )
            if expected.get(token, found) != found:
                raise CheckpointError(
                    f"{token!r} has id {found} in the tokenizer of {self.source}, the checkpoint "
                    f"says {expected[token]}. Use the tokenizer saved with the checkpoint."
                )


def _tokenizer_json(text: str, path: Path) -> dict[str, Any]:
    # The library raises a bare Exception for a bad file; find out what is wrong before it does.
    content: dict[str, Any] = {}
    try:
        content = json.loads(text)
        has_model = isinstance(content["model"]["vocab"], (dict, list))
    except (ValueError, KeyError, TypeError):
        has_model = False
    if not has_model:
        raise CheckpointError(
            f"{path} is damaged or no tokenizer: expected JSON of the tokenizers library with a "
            "model and its vocabulary. Fetch or save the tokenizer again."
        )
    return content


def _drop_plain_tokens(content: dict[str, Any], config: Path) -> bool:
    """Leave out added tokens that are ordinary pieces, and return whether there were any.

    Parity: transformers 5 builds Gemma's tokenizer anew. What `tokenizer_config.json` does not list
    is text to it, so that a task cannot spell action tokens (`<loc0001>`) by their names.
    """
    if not config.is_file():
        return False
    settings = read_json(
        config, CheckpointError, missing=".", damaged="Fetch or save the tokenizer again."
    )
    listed = settings.get("added_tokens_decoder")
    if not listed or not str(settings.get("tokenizer_class")).startswith("Gemma"):
        return False
    special = {entry["content"] for entry in listed.values()}
    added, pieces = content.get("added_tokens") or [], content["model"]["vocab"]
    kept = [t for t in added if t["content"] in special or t["content"] not in pieces]
    content["added_tokens"] = kept
    return len(kept) < len(added)


def expand_images(ids: Sequence[int], image_id: int, tokens_per_image: Sequence[int]) -> list[int]:
    """Return the ids with the n-th image token repeated as often as the n-th image has tokens."""
    counts = iter(tokens_per_image)
    expanded: list[int] = []
    for token in ids:
        expanded += [token] * (next(counts) if token == image_id else 1)
    return expanded


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the files of a tokenizer and image processor into a checkpoint."""
    if source.resolve() == target.resolve():
        return
    target.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
