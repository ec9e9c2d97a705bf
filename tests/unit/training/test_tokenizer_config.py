# SPDX-License-Identifier: Apache-2.0
"""Flags of train-tokenizer that cannot work are refused before anything is read."""

from __future__ import annotations

from typing import Any

import pytest

from vlakit.config import parse_flags
from vlakit.errors import ConfigError
from vlakit.training.tokenizer_config import TokenizerFlags


def flags(*arguments: str) -> TokenizerFlags:
    return parse_flags(TokenizerFlags, ["--repo_id=me/arm", *arguments], prog="test")


def test_defaults_are_lerobots() -> None:
    given = flags()
    assert (given.action_horizon, given.vocab_size, given.scale) == (10, 1024, 10.0)
    assert (given.normalization_mode, given.sample_fraction) == ("QUANTILES", 0.1)
    assert (given.push_to_hub, given.hub_private, given.use_relative_transform) == (False,) * 3
    assert given.state_key == "observation.state"
    assert (given.max_episodes, given.relative_dims, given.root, given.hub_repo_id) == (None,) * 4
    assert str(given.output_path()) == "fast_tokenizer_me_arm"


def test_ranges_are_read_as_text() -> None:
    assert flags("--encoded_dims", "0:6").encoded_ranges() == [(0, 6)]
    assert flags("--encoded_dims=0:6, 7:23").encoded_ranges() == [(0, 6), (7, 23)]
    relative = flags("--relative_dims=0,1,2", "--use_relative_transform=true")
    assert relative.relative_dim_list() == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--encoded_dims=6"], "has '6'; expected ranges start:end"),
        (["--encoded_dims=0:6,"], "has ''; expected ranges"),
        (["--encoded_dims=3:3"], "has '3:3'; expected ranges start:end with start below end"),
        (["--encoded_dims=-1:3"], "has '-1:3'"),
        (["--encoded_dims=0:4,2:6"], "names dimension 2 twice"),
        (["--relative_dims=0,x", "--use_relative_transform"], "--relative_dims=0,x: expected dim"),
        (["--relative_dims=0,1"], "has no effect without --use_relative_transform=true"),
        (["--use_relative_transform"], "needs the dimensions to make relative"),
        (["--action_horizon=0"], "--action_horizon=0 must be at least 1"),
        (["--max_episodes=0"], "--max_episodes=0 must be at least 1"),
        (["--vocab_size=255"], "--vocab_size=255 must be at least 256"),
        (["--sample_fraction=0"], "--sample_fraction=0.0 must be above 0"),
        (["--sample_fraction=1.5"], "--sample_fraction=1.5 must be above 0"),
        (["--scale=0"], "--scale=0 must be a positive number"),
        (["--scale=.inf"], "--scale=inf must be a positive number"),
        (["--repo_id="], "--repo_id is empty"),
        (["--normalization_mode=QUANTILE"], "expected one of MEAN_STD, MIN_MAX, QUANTILES"),
        (["--sweep", "--push_to_hub"], "--sweep fits no tokenizer that could be pushed"),
        (["--vocab=3"], "unknown flag --vocab. Did you mean '--vocab_size'?"),
    ],
)
def test_what_cannot_work_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        flags(*arguments)
    assert message in str(caught.value)


def test_a_folder_names_the_output(tmp_path: Any) -> None:
    (tmp_path / "drawer").mkdir()
    given = TokenizerFlags(repo_id=str(tmp_path / "drawer"))
    assert str(given.output_path()) == "fast_tokenizer_drawer"
