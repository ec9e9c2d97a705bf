# SPDX-License-Identifier: Apache-2.0
"""What is chosen or found unasked is said, and nothing is said where all is well."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rich.console import Console

from tests.end_to_end.damage import edit_json
from tests.fixtures_root import FIXTURE_ROOT
from tests.unit.training.fast_tokenizer.conftest import Reader
from vlakit.training.fast_tokenizer.data import read_training_data
from vlakit.training.fast_tokenizer.fit import fit
from vlakit.training.fast_tokenizer.notices import data_notices
from vlakit.training.tokenizer_config import TokenizerFlags

ALL = {"encoded_dims": "0:7", "action_horizon": 7}


def test_nothing_to_say(read: Reader) -> None:
    assert data_notices(read(**ALL)) == []
    assert fit(read(**ALL, vocab_size=400), Console(quiet=True)).notices() == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"encoded_dims": None}, "all 7 dimensions of the action are encoded (0 x, 1 y, 2 z"),
        ({"encoded_dims": "0:6"}, "(not encoded: 6 gripper). pi0-FAST encodes all dimensions"),
        ({"encoded_dims": "6:7,0:6"}, "(another order)"),
        ({"action_horizon": 8}, "1 of 4 episodes are shorter than --action_horizon=8"),
    ],
)
def test_choices_are_said(read: Reader, flags: dict[str, object], words: str) -> None:
    (notice,) = data_notices(read(**{**ALL, **flags}))
    assert words in notice


def test_quantiles_that_are_none_of_the_data_are_said() -> None:
    root = str(FIXTURE_ROOT / "dataset/v3.0")  # LeRobot averages the quantiles of the episodes
    flags = TokenizerFlags(repo_id="toy", root=root, encoded_dims="0:4", sample_fraction=1.0)
    (notice,) = data_notices(read_training_data(flags))
    assert "where about 2% of an action should be: 0 a0 " in notice
    assert "3 gripper 100%. Perhaps they are no quantiles of this data" in notice


def test_quantiles_of_absolute_actions_are_said_of_relative_ones(arm: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(arm, tmp_path / "arm"))
    edit_json("meta/stats.json", lambda stats: stats["action"].update(q99=[0.1] * 7))(root)
    flags = {"repo_id": "me/arm", "root": str(root), **ALL}
    relative = {"relative_dims": "0,1,2", "use_relative_transform": True, "reference": True}
    (notice,) = data_notices(read_training_data(TokenizerFlags(**flags, **relative)))
    assert "those of absolute actions, while these are relative" in notice
    relative["reference"] = False
    assert data_notices(read_training_data(TokenizerFlags(**flags, **relative))) == []
    (notice,) = data_notices(read_training_data(TokenizerFlags(**flags)))
    assert "no quantiles of this data" in notice


def test_dimensions_that_hardly_move_are_said(arm: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(arm, tmp_path / "arm"))

    def still(stats: dict[str, dict[str, list[float]]]) -> None:
        for name in ("min", "max", "mean", "q01", "q10", "q50", "q90", "q99"):
            stats["action"][name][2] = 0.5

    edit_json("meta/stats.json", still)(root)
    flags = TokenizerFlags(repo_id="me/arm", root=str(root), encoded_dims="0:7", action_horizon=7)
    notices = data_notices(read_training_data(flags))
    assert notices[0].startswith("hardly moving: 2 z; scaled by a floored range")


def test_a_sample_too_small_for_the_vocabulary_is_said(read: Reader) -> None:
    quiet = Console(quiet=True)
    (notice,) = fit(read(**ALL, sample_fraction=0.1), quiet).notices()
    assert "of the --vocab_size=1024 asked for. Give a larger --sample_fraction." in notice
