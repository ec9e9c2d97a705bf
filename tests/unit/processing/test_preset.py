# SPDX-License-Identifier: Apache-2.0
"""The embedded backbone: short sequences, and ids that Hugging Face's loader agrees with."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from vlakit.hub import resolve
from vlakit.policies.eo1.conversation import EO1_TOKENS, ConversationTemplate
from vlakit.processing.text import IMAGE_PAD, TextTokenizer

FOLDER = resolve("tiny-qwen2.5-vl")
CAMERA = {"observation.image": {"type": "VISUAL", "shape": [3, 84, 84]}}
TASKS = [
    "open the drawer",
    "close the drawer",
    "pick up the red block and place it in the bowl",
    "press a button from the top",
]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.from_pretrained(FOLDER, EO1_TOKENS)


def test_a_demo_sequence_has_forty_tokens(tokenizer: TextTokenizer) -> None:
    ids = tokenizer.encode(ConversationTemplate(CAMERA, 8).render("open the drawer"))
    image_tokens = (84 // 28) ** 2
    assert len(ids) - 1 + image_tokens == 40


@pytest.mark.parametrize("task", TASKS)
def test_every_word_of_an_instruction_is_one_token(tokenizer: TextTokenizer, task: str) -> None:
    assert len(tokenizer.encode(task)) == len(task.split())


def test_special_tokens_fit_the_embedding(tokenizer: TextTokenizer) -> None:
    config = json.loads((FOLDER / "config.json").read_text())
    rows = config["text_config"]["vocab_size"]
    tokenizer.check_ids((*EO1_TOKENS, IMAGE_PAD), rows, {IMAGE_PAD: config["image_token_id"]})
    assert len(tokenizer) <= rows


def test_hugging_face_gives_the_same_ids_and_the_same_conversation(
    tokenizer: TextTokenizer,
) -> None:
    transformers = pytest.importorskip("transformers")
    oracle = transformers.AutoTokenizer.from_pretrained(FOLDER)
    oracle.add_tokens(list(EO1_TOKENS), special_tokens=True)
    for task in [*TASKS, "  Nimm die Tasse über dem Teller — vorsichtig!\n", "中文 🙂"]:
        text = ConversationTemplate(CAMERA, 3).render(task)
        assert oracle(text)["input_ids"] == list(tokenizer.encode(text))
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "hi"}]},
    ]
    rendered = oracle.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")
    assert rendered.endswith("hi<|im_end|>\n<|im_start|>assistant\n")


def test_the_tool_writes_the_committed_files(tmp_path: Path) -> None:
    tool = Path(__file__).parents[3] / "tools" / "make_tiny_qwen_preset.py"
    spec = importlib.util.spec_from_file_location("make_tiny_qwen_preset", tool)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(tmp_path)
    for path in tmp_path.iterdir():
        assert json.loads(path.read_text()) == json.loads((FOLDER / path.name).read_text())
