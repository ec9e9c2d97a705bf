# SPDX-License-Identifier: Apache-2.0
"""The embedded tokenizer: short prompts, PaliGemma's layout, ids as Hugging Face gives them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from vlakit.environments.metaworld_tasks import INSTRUCTIONS
from vlakit.hub import resolve
from vlakit.policies.backbones.paligemma_config import PaliGemmaSizes
from vlakit.policies.pi0_fast.action_tokens import ActionVocabulary
from vlakit.processing.text import TextTokenizer

FOLDER = resolve("tiny-paligemma")
ODD = ["  Nimm die Tasse — vorsichtig!\n", "中文 🙂", "open 300 doors_now", "<loc0001>|"]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.from_pretrained(FOLDER)


def prompt(task: str) -> str:
    return f"Task: {task}, State: 120 -1 0 255;\n"


def test_an_instruction_takes_a_token_per_word_and_number(tokenizer: TextTokenizer) -> None:
    for task in INSTRUCTIONS.values():
        fixed = len(["Task:", ", State:", ";\n"])
        assert len(tokenizer.encode(prompt(task))) == len(task.split()) + 4 + fixed, task
        lower = len(tokenizer.encode(prompt(task).replace("State", "state")))
        assert lower == len(tokenizer.encode(prompt(task)))


def test_fast_ids_cover_no_word(tokenizer: TextTokenizer) -> None:
    vocabulary = ActionVocabulary.from_tokenizer(tokenizer, skip_tokens=128, fast_vocab_size=2048)
    assert vocabulary.text_vocab_size == PaliGemmaSizes.of_variant("tiny").text.vocab_size
    pieces = tokenizer.pieces(list(vocabulary.head_ids))
    assert pieces[-1] == "<loc1023>"
    assert all(piece.startswith(("<loc", "<unused")) for piece in pieces)
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.bos_id) == (0, 1, 2)


def test_hugging_face_gives_the_same_ids(tokenizer: TextTokenizer) -> None:
    transformers = pytest.importorskip("transformers")
    oracle = transformers.AutoTokenizer.from_pretrained(FOLDER)
    for text in [*map(prompt, [*INSTRUCTIONS.values(), *ODD]), "Action: "]:
        assert oracle(text)["input_ids"] == [2, *tokenizer.encode(text)]
        assert oracle.decode(tokenizer.encode(text)) == text


def test_the_tool_writes_the_committed_files(tmp_path: Path) -> None:
    tool = Path(__file__).parents[4] / "tools" / "make_tiny_paligemma_preset.py"
    spec = importlib.util.spec_from_file_location("make_tiny_paligemma_preset", tool)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(tmp_path)
    for path in tmp_path.iterdir():
        assert json.loads(path.read_text()) == json.loads((FOLDER / path.name).read_text())
