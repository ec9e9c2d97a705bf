# SPDX-License-Identifier: Apache-2.0
"""Prompts as padded ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fixtures_root import FIXTURE_ROOT
from vlakit.errors import CheckpointError, ConfigError, ProcessingError
from vlakit.policies.pi0_fast.processor_text import PromptTokens
from vlakit.processing.text import TextTokenizer

PRESET = "tiny-paligemma"
TEXTS = ["Task: open the door, State: 1 2;\n", "Task: push, State: 1 2;\n"]


def step(max_length: int = 20, **changes: Any) -> PromptTokens:
    return PromptTokens(PRESET, max_length, **changes)


def test_ids_begin_with_bos_and_are_padded_on_the_right() -> None:
    tokens = step()
    batch = tokens({"task": TEXTS})
    ids, mask = batch["observation.language.tokens"], batch["observation.language.attention_mask"]
    assert (ids.shape, ids.dtype, mask.dtype) == ((2, 20), torch.int64, torch.bool)
    for row, text in enumerate(TEXTS):
        expected = [2, *tokens.tokenizer.encode(text)]
        assert ids[row].tolist() == expected + [0] * (20 - len(expected))
        assert mask[row].tolist() == [True] * len(expected) + [False] * (20 - len(expected))


def test_a_prompt_that_is_too_long_is_refused_or_cut_on_the_right() -> None:
    message = r"prompt of row 0 has 9 tokens, more than --policy.tokenizer_max_length=7: 'Task: op"
    with pytest.raises(ProcessingError, match=message):
        step(7)({"task": TEXTS})
    whole = step()({"task": TEXTS})["observation.language.tokens"]
    cut = step(7, allow_truncation=True)({"task": TEXTS})
    assert torch.equal(cut["observation.language.tokens"], whole[:, :7])


@pytest.mark.parametrize(
    "changes", [{"padding_side": "left"}, {"padding": "longest"}, {"tokenizer_name": None}]
)
def test_another_padding_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="as pi0-FAST has them"):
        PromptTokens(**({"tokenizer_name": PRESET} | changes))


def test_a_tokenizer_without_bos_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"no '<bos>'.*--policy.text_tokenizer_name"):
        PromptTokens("tiny-qwen2.5-vl").check({})


def test_a_folder_without_a_tokenizer_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no tokenizer.json.*--policy.text_tokenizer_name"):
        PromptTokens(str(tmp_path)).check({})


def test_a_stored_tokenizer_is_preferred_unless_another_is_asked_for(tmp_path: Path) -> None:
    step().save_assets(tmp_path)
    elsewhere = PromptTokens("nobody/knows")
    elsewhere.load_assets(tmp_path, artifacts={}, overridden=())
    assert isinstance(elsewhere.tokenizer, TextTokenizer)
    asked = PromptTokens("nobody/knows")
    asked.load_assets(tmp_path, artifacts={}, overridden=["tokenizer_name"])
    with pytest.raises(CheckpointError, match="nobody/knows"):
        _ = asked.tokenizer


def test_a_token_that_is_no_word_is_refused() -> None:
    prompts = ["Task: push, State: 1;\n", "Task: the <image> of it, State: 1;\n"]
    with pytest.raises(ProcessingError, match="row 1 holds '<image>', which stands for no word"):
        PromptTokens(str(FIXTURE_ROOT / "tokenizers" / "tiny-paligemma"))({"task": prompts})
