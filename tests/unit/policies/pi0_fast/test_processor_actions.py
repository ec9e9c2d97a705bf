# SPDX-License-Identifier: Apache-2.0
"""Action chunks as tokens: the two layouts, lengths, losses, and what is refused."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlakit.errors import ConfigError, ProcessingError
from vlakit.policies.pi0_fast.processor_actions import ActionTokens, percentile
from vlakit.processing import FastTokenizer

HORIZON, DIM = 8, 3


@pytest.fixture(scope="module")
def chunks() -> torch.Tensor:
    random = np.random.default_rng(0)
    return torch.from_numpy(random.uniform(-1, 1, (40, HORIZON, DIM)).cumsum(axis=1) / 4).float()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, chunks: torch.Tensor) -> Path:
    path = tmp_path_factory.mktemp("fast")
    FastTokenizer.train(chunks.numpy(), vocab_size=300).save_pretrained(path)
    return path


def step(folder: Path, **changes: Any) -> ActionTokens:
    settings = {"paligemma_tokenizer_name": "tiny-paligemma", "max_action_tokens": 64}
    return ActionTokens(str(folder), **(settings | changes))


@pytest.mark.parametrize("layout", ["lerobot", "openpi"])
def test_tokens_are_the_codes_between_fixed_tokens(
    folder: Path, chunks: torch.Tensor, layout: Any
) -> None:
    tokens = step(folder, token_layout=layout)
    batch = tokens({"action": chunks})
    ids, mask = batch["action.tokens"], batch["action.token_mask"]
    assert (ids.shape, ids.dtype, mask.dtype) == ((40, 64), torch.int64, torch.bool)
    vocabulary = tokens.vocabulary
    for row, codes in enumerate(FastTokenizer.from_pretrained(folder).encode(chunks.numpy())):
        real = ids[row][mask[row]].tolist()
        start = [2] if layout == "lerobot" else []
        head, tail = [*start, *vocabulary.prefix_ids], [vocabulary.bar_id, 1]
        assert real == [*head, *vocabulary.to_text_ids(codes), *tail]
        assert ids[row][~mask[row]].eq(0).all()
        assert mask[row].long().diff().le(0).all(), "padding is on the right"


def test_without_actions_nothing_happens(folder: Path) -> None:
    batch = {"action": None, "task": ["a"]}
    assert step(folder)(batch) == batch


def test_a_chunk_that_is_too_long_names_p99_and_the_flag(
    folder: Path, chunks: torch.Tensor
) -> None:
    tokens = step(folder)
    tokens({"action": chunks})
    longest, p99 = max(tokens.lengths), percentile(tokens.lengths, 0.99)
    short = step(folder, max_action_tokens=longest - 1)
    message = rf"has {longest} tokens, more than --policy.max_action_tokens={longest - 1} .*{p99}"
    with pytest.raises(ConfigError, match=message):
        short({"action": chunks})
    cut = step(folder, max_action_tokens=10, allow_truncation=True)({"action": chunks})
    assert torch.equal(cut["action.tokens"], tokens({"action": chunks})["action.tokens"][:, :10])


def test_percentiles_are_the_smallest_values_that_suffice() -> None:
    counts = Counter({10: 98, 20: 1, 30: 1})
    assert [percentile(counts, share) for share in (0.5, 0.98, 0.99, 1.0)] == [10, 10, 20, 30]


def test_a_loss_is_said_once(
    folder: Path, chunks: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = step(folder, max_action_tokens=400)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            tokens({"action": chunks * 30})
    assert len(caplog.records) == 1
    assert "encoded with losses" in caplog.text


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (torch.zeros(2, 5, DIM), r"shape \[2, 5, 3\]; expected \(batch, chunk_size=8"),
        (torch.zeros(2, DIM), r"shape \[2, 3\]"),
        (torch.full((1, HORIZON, DIM), torch.nan), "NaN or infinity"),
    ],
)
def test_what_is_no_chunk_is_refused(folder: Path, action: torch.Tensor, message: str) -> None:
    with pytest.raises(ProcessingError, match=message):
        step(folder, chunk_size=HORIZON)({"action": action})


def test_both_tokenizers_travel_with_the_checkpoint(
    folder: Path, chunks: torch.Tensor, tmp_path: Path
) -> None:
    step(folder).save_assets(tmp_path)
    moved = step(Path("nobody/knows"))
    moved.load_assets(tmp_path, artifacts={}, overridden=())
    expected = step(folder)({"action": chunks})["action.tokens"]
    assert torch.equal(moved({"action": chunks})["action.tokens"], expected)


def test_a_tokenizer_fitted_anew_into_its_folder_is_read_anew(
    tmp_path: Path, chunks: torch.Tensor
) -> None:
    FastTokenizer.train(chunks.numpy(), vocab_size=300).save_pretrained(tmp_path / "fast")
    before = step(tmp_path / "fast")
    assert before.tokenizer is step(tmp_path / "fast").tokenizer
    FastTokenizer.train(chunks.numpy(), vocab_size=300, scale=5.0).save_pretrained(
        tmp_path / "fast"
    )
    assert step(tmp_path / "fast").tokenizer.scale == 5.0
    assert before.tokenizer.scale == 10.0
    before.save_assets(tmp_path)
    assert FastTokenizer.from_pretrained(tmp_path / "action_tokenizer").scale == 10.0


def test_actions_in_float64_are_not_rounded_first(folder: Path) -> None:
    """A coefficient just below a tie, which float32 would put above it."""
    chunk = torch.full((1, 1, 1), 0.05 * (1 - 1e-10), dtype=torch.float64)
    tokens = step(folder)
    assert tokens.rows(chunk) == tokens.rows(torch.zeros(1, 1, 1))
    assert tokens.rows(chunk.float()) != tokens.rows(torch.zeros(1, 1, 1))
