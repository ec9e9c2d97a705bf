# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.fixtures_root import FIXTURE_ROOT
from vlakit.errors import CheckpointError
from vlakit.processing.text import (
    TextTokenizer,
    copy_tokenizer,
    expand_images,
    render_conversation,
)

FOLDER = FIXTURE_ROOT / "tokenizers" / "tiny-qwen2.5-vl"


@pytest.fixture
def tokenizer() -> TextTokenizer:
    return TextTokenizer.from_pretrained(FOLDER, ["<|vla|>"])


def test_a_conversation_without_system_message_gets_qwens() -> None:
    assert render_conversation([("user", [None, "hi"])], add_generation_prompt=True) == (
        "<|im_start|>system\nYou are a helpful "
        "assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>hi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_each_image_token_is_repeated_as_often_as_its_image_has_tokens() -> None:
    assert expand_images([1, 7, 2, 7, 3], 7, [2, 3]) == [1, 7, 7, 2, 7, 7, 7, 3]


def test_a_token_that_is_there_already_keeps_its_id(tokenizer: TextTokenizer) -> None:
    again = TextTokenizer.from_pretrained(FOLDER, ["<|im_end|>", "<|vla|>"])
    assert again.token_id("<|im_end|>") == 562
    assert again.token_id("<|vla|>") == tokenizer.token_id("<|vla|>") == 576


def test_an_id_beyond_the_embedding_is_refused(tokenizer: TextTokenizer) -> None:
    with pytest.raises(CheckpointError, match=r"'<\|vla\|>' has id 576 .* embedding has 576 rows"):
        tokenizer.check_ids(["<|vla|>"], 576, {})


def test_an_id_that_the_checkpoint_states_otherwise_is_refused(tokenizer: TextTokenizer) -> None:
    with pytest.raises(CheckpointError, match=r"the checkpoint says 577"):
        tokenizer.check_ids(["<|vla|>"], 640, {"<|vla|>": 577})


def test_a_tokenizer_of_another_model_is_refused(tokenizer: TextTokenizer) -> None:
    with pytest.raises(CheckpointError, match="no token '<loc0001>'"):
        tokenizer.token_id("<loc0001>")


def test_a_folder_without_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        TextTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("length", [100, 20_000])
def test_a_truncated_tokenizer_is_named(tmp_path: Path, length: int) -> None:
    text = (FOLDER / "tokenizer.json").read_text(encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text(text[:length], encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged"):
        TextTokenizer.from_pretrained(tmp_path)


def test_a_copied_tokenizer_gives_the_same_ids(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    copy_tokenizer(FOLDER, tmp_path / "tokenizer")
    copied = TextTokenizer.from_pretrained(tmp_path / "tokenizer", ["<|vla|>"])
    assert copied.encode("open<|vla|>") == tokenizer.encode("open<|vla|>")
    assert not (tmp_path / "tokenizer" / "model.safetensors").exists()


def paligemma(tmp_path: Path, **config: object) -> TextTokenizer:
    source = FIXTURE_ROOT / "tokenizers" / "tiny-paligemma"
    shutil.copy(source / "tokenizer.json", tmp_path)
    settings = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | config))
    return TextTokenizer.from_pretrained(tmp_path)


def test_a_task_cannot_spell_paligemmas_action_tokens(tmp_path: Path) -> None:
    """Transformers 5 takes for special what tokenizer_config.json lists, and nothing else."""
    tokenizer = paligemma(tmp_path)
    spelled = tokenizer.pieces(tokenizer.encode("<loc0001><eos>"))
    assert spelled == ["<", "lo", "c", "0", "0", "0", "1", ">", "<eos>"]
    assert tokenizer.find("<loc0001>") == 2945
    assert tokenizer.base_size == 4096
    assert tokenizer.find("<image>") == 4096


@pytest.mark.parametrize(
    "config", [{"tokenizer_class": "PreTrainedTokenizerFast"}, {"added_tokens_decoder": None}]
)
def test_other_tokenizers_keep_their_added_tokens(tmp_path: Path, config: dict) -> None:
    tokenizer = paligemma(tmp_path, **config)
    assert tokenizer.pieces(tokenizer.encode("<loc0001>")) == ["<loc0001>"]
