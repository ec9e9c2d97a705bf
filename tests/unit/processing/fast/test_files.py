# SPDX-License-Identifier: Apache-2.0
"""Both layouts on disk, damaged files, and what transformers makes of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from tests.unit.processing.fast.random_chunks import fitted, smooth_chunks
from vlakit.errors import CheckpointError
from vlakit.features import NormalizationMode
from vlakit.processing import FastTokenizer
from vlakit.processing.fast import FastNormalizer
from vlakit.processing.fast.dct import quantized_dct
from vlakit.processing.fast.spelling import texts_of

TOKENIZER, CONFIG = "tokenizer.json", "processor_config.json"
INNER = f"bpe_tokenizer/{TOKENIZER}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fitted().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def is_the_same(tokenizer: FastTokenizer) -> bool:
    chunks = smooth_chunks(20, 10, 4, seed=5, size=0.6)
    return (
        tokenizer.encode(chunks) == fitted().encode(chunks)
        and tokenizer.token_bytes == fitted().token_bytes
        and tokenizer.horizon == 10
    )


def test_saved_and_loaded(folder: Path) -> None:
    assert is_the_same(FastTokenizer.from_pretrained(folder))
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    assert config["auto_map"]["AutoProcessor"].endswith(".UniversalActionProcessor")
    assert not list(folder.rglob("*.py"))


@pytest.mark.parametrize("gone", [TOKENIZER, INNER])
def test_either_layout_is_enough(folder: Path, gone: str) -> None:
    (folder / gone).unlink()
    assert is_the_same(FastTokenizer.from_pretrained(folder))


def test_merges_may_be_written_as_text(folder: Path) -> None:
    (folder / INNER).unlink()

    def join(content: dict[str, Any]) -> None:
        content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]

    edit(folder / TOKENIZER, join)
    assert is_the_same(FastTokenizer.from_pretrained(folder))


def test_missing_keys_have_the_references_defaults(folder: Path) -> None:
    (folder / CONFIG).write_text('{"min_token": -7}', encoding="utf-8")
    tokenizer = FastTokenizer.from_pretrained(folder)
    assert (tokenizer.scale, tokenizer.min_token) == (10.0, -7)
    assert (tokenizer.horizon, tokenizer.action_dim) == (None, None)
    with pytest.raises(ValueError, match="the horizon of a chunk is not stored"):
        tokenizer.decode([[1]])
    (folder / CONFIG).write_text("{}", encoding="utf-8")
    assert FastTokenizer.from_pretrained(folder).min_token == 0


def break_merge(content: dict[str, Any]) -> None:
    content["model"]["merges"][0] = ["no", "such"]


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (CONFIG, lambda content: content.update(scale=0), "scale is 0, expected a number above 0"),
        (CONFIG, lambda content: content.update(scale="x"), "scale is 'x'"),
        (CONFIG, lambda content: content.update(min_token=1.5), "min_token is 1.5"),
        (CONFIG, lambda content: content.update(time_horizon=0), "time_horizon is 0, expected at"),
        (INNER, lambda content: content.pop("model"), "has no BPE vocabulary"),
        (INNER, lambda content: content["model"].update(type="Unigram"), "model.type is 'Unigram'"),
        (INNER, lambda content: content["model"].update(dropout=0.1), "model.dropout is 0.1"),
        (INNER, lambda content: content.update(pre_tokenizer=None), "pre_tokenizer.type is None"),
        (INNER, lambda content: content.update(added_tokens=[{"id": 9}]), "added_tokens is"),
        (INNER, lambda content: content["model"]["vocab"].update(x=999), "are not 0 to"),
        (INNER, break_merge, r"'no' of the merge \['no', 'such'\] is not in the vocabulary"),
        (INNER, lambda content: content["model"].update(merges=["abc"]), "'abc' is no pair"),
        (INNER, lambda content: content["model"].update(merges=7), "merges are no list"),
        (INNER, lambda content: content["model"].update(vocab={"a": "b"}), "are not 0 to 0"),
    ],
)
def test_damaged_files_are_named(
    folder: Path, name: str, change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    edit(folder / name, change)
    with pytest.raises(CheckpointError, match=words) as caught:
        FastTokenizer.from_pretrained(folder)
    assert str(folder / name) in str(caught.value)


@pytest.mark.parametrize("name", [CONFIG, INNER])
def test_files_that_are_no_json_are_named(folder: Path, name: str) -> None:
    (folder / name).write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        FastTokenizer.from_pretrained(folder)


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    for name in (TOKENIZER, INNER):
        (folder / name).unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer.json is missing, and so is bpe_tok"):
        FastTokenizer.from_pretrained(folder)
    (folder / CONFIG).unlink()
    with pytest.raises(CheckpointError, match="expected the folder of a FAST tokenizer"):
        FastTokenizer.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="no local folder"):
        FastTokenizer.from_pretrained(tmp_path / "nowhere")


def test_the_normalizer_travels_with_the_tokenizer(tmp_path: Path) -> None:
    tokenizer = FastTokenizer.train(smooth_chunks(50, 8, 2), vocab_size=300)
    tokenizer.normalizer = FastNormalizer(
        mode=NormalizationMode.QUANTILES,
        encoded_dims=[(0, 1), (2, 3)],
        relative_dims=[0],
        stats={"q01": [-1.0, 0.0, -2.0], "q99": [1.0, 1.0, 2.0]},
        repo_id="somebody/something",
        clip=True,
    )
    tokenizer.save_pretrained(tmp_path)
    assert FastTokenizer.from_pretrained(tmp_path).normalizer == tokenizer.normalizer
    tokenizer.normalizer = None
    tokenizer.save_pretrained(tmp_path)
    assert FastTokenizer.from_pretrained(tmp_path).normalizer is None


@pytest.mark.parametrize("regex_split", [True, False])
@pytest.mark.parametrize("place", [".", "bpe_tokenizer"])
def test_transformers_reads_both_layouts_and_gives_the_same_ids(
    tmp_path: Path, place: str, regex_split: bool
) -> None:
    tokenizer = fitted(regex_split=regex_split)
    tokenizer.save_pretrained(tmp_path)
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path / place)
    chunks = smooth_chunks(30, 10, 4, seed=5, size=0.6)
    texts = texts_of(quantized_dct(chunks, tokenizer.scale) - tokenizer.min_token)
    assert [theirs(text)["input_ids"] for text in texts] == tokenizer.encode(chunks)
    assert [theirs.decode(ids) for ids in tokenizer.encode(chunks)] == texts
