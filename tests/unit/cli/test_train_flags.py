# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from vlakit.cli.train_flags import read_flags
from vlakit.errors import ConfigError

DOCUMENTED = [
    "--dataset.repo_id=your_org/your_dataset",
    "--policy.type=eo1",
    "--policy.vlm_base=Qwen/Qwen2.5-VL-3B-Instruct",
    "--policy.dtype=bfloat16",
    "--policy.attn_implementation=sdpa",
    "--policy.gradient_checkpointing=false",
    "--job_name=eo1_training",
    "--steps=300000",
    "--batch_size=16",
    "--policy.device=cuda",
]
"""The training command of LeRobot's page on EO-1, which names no repository to push to."""


def test_the_reference_s_documented_command_is_complete(tmp_path: Path) -> None:
    flags = read_flags([*DOCUMENTED, f"--output_dir={tmp_path / 'run'}"])
    assert flags.policy is not None
    assert not flags.policy.push_to_hub
    assert (flags.steps, flags.batch_size, flags.job_name) == (300_000, 16, "eo1_training")


def test_a_named_repository_is_pushed_to_as_in_lerobot(tmp_path: Path) -> None:
    given = [*DOCUMENTED, f"--output_dir={tmp_path / 'run'}", "--policy.repo_id=me/policy"]
    policy = read_flags(given).policy
    assert policy is not None
    assert policy.push_to_hub


def test_pushing_without_a_name_is_refused(tmp_path: Path) -> None:
    given = [*DOCUMENTED, f"--output_dir={tmp_path / 'run'}", "--policy.push_to_hub=true"]
    with pytest.raises(ConfigError, match=r"--policy\.repo_id is missing"):
        read_flags(given)
