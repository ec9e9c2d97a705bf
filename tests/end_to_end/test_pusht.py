# SPDX-License-Identifier: Apache-2.0
"""PushT as typed, with a tiny EO-1."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.end_to_end import tiny_checkpoints
from tests.end_to_end.damage import one_line
from vlakit.cli.main import main

pytestmark = pytest.mark.skipif(find_spec("gym_pusht") is None, reason="PushT is not installed")


def test_two_workers_give_what_one_gives(tmp_path: Path) -> None:
    camera = ["observation.image"]
    path = tiny_checkpoints.eo1(tmp_path / "p", camera, size=96, state=2, action=2, scale=300)
    rewards = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        flags = [f"--eval.batch_size={workers}", "--eval.n_episodes=2", "--env.episode_length=32"]
        command = ["eval", f"--policy.path={path}", "--env.type=pusht", f"--output_dir={out}"]
        assert main([*command, *flags, "--eval.max_videos=1"]) == 0
        info = json.loads((out / "eval_info.json").read_text())
        (task,) = info["per_task"]
        assert (task["task_group"], task["seeds"]) == ("PushT-v0", [1000, 1001])
        rewards.append(task["metrics"]["sum_rewards"])
        assert (out / "videos/PushT-v0_0/eval_episode_0.mp4").is_file()
    assert rewards[0] == pytest.approx(rewards[1], rel=1e-3)
    assert len(set(rewards[0])) == 2


def test_collecting_says_that_there_is_no_expert(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    command = ["collect", "--env.type=pusht", "--repo_id=local/x", f"--root={root}", "--episodes=1"]
    one_line(capsys, command, "PushT has no scripted expert", out=root)
