# SPDX-License-Identifier: Apache-2.0
"""LIBERO as typed: the evaluation commands of LeRobot's EO-1 and pi0-FAST pages, and mistakes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import av
import pytest

from tests.end_to_end import tiny_checkpoints
from tests.end_to_end.damage import one_line
from tests.fixtures_root import LIBERO_ASSETS
from tests.libero import needs_libero
from vlakit.cli.main import main
from vlakit.datasets import LeRobotDataset

SMALL = ("--env.observation_height=32", "--env.observation_width=32")
ROUGH = ("--env.fast_render=true",)
EO1_COMMAND = """
    --policy.path=your-org/your-eo1-checkpoint
    --env.type=libero
    --env.task=libero_object
    --eval.batch_size=1
    --eval.n_episodes=20
"""
EO1_RENAMED_COMMAND = """
    --policy.path=your-org/your-eo1-checkpoint
    --env.type=libero
    --env.task=libero_object
    --rename_map='{"observation.images.image2":"observation.images.wrist_image"}'
"""
PI0_FAST_COMMAND = """
    --policy.path=lerobot/pi0fast-libero
    --policy.max_action_tokens=256
    --env.type=libero
    --policy.gradient_checkpointing=false
    --env.task=libero_object,libero_spatial,libero_goal,libero_10
    --eval.batch_size=1
    --eval.n_episodes=1
    --rename_map='{"observation.images.image":"observation.images.base_0_rgb","observation.images.image2":"observation.images.left_wrist_0_rgb"}'
"""


@pytest.fixture(autouse=True)
def _assets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBERO_ASSETS", str(LIBERO_ASSETS))


def checkpoint(folder: Path, kind: str, *names: str) -> Path:
    cameras = [f"observation.images.{name}" for name in names]
    return getattr(tiny_checkpoints, kind)(folder, cameras, size=360, state=8, action=7)


def run(command: str, path: Path, out: Path, *flags: str) -> dict:
    words = shlex.split(command)
    words[0] = f"--policy.path={path}"
    assert main(["eval", *words, f"--output_dir={out}", *flags]) == 0
    return json.loads((out / "eval_info.json").read_text())


@needs_libero
@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "cameras"),
    [(EO1_COMMAND, ("image", "image2")), (EO1_RENAMED_COMMAND, ("image", "wrist_image"))],
    ids=["plain", "rename_map"],
)
def test_the_eo1_page(command: str, cameras: tuple[str, ...], tmp_path: Path) -> None:
    """Fewer tasks, episodes and steps; nothing else is changed."""
    path = checkpoint(tmp_path / "policy", "eo1", *cameras)
    fewer = ("--env.task_ids=[0,3]", "--eval.n_episodes=1", "--env.episode_length=4")
    info = run(command, path, tmp_path / "out", *fewer)
    assert [(task["task_group"], task["task_id"]) for task in info["per_task"]] == [
        ("libero_object", 0),
        ("libero_object", 3),
    ]
    words = "pick up the bbq sauce and place it in the basket"
    assert info["per_task"][1]["instruction"] == words
    video = tmp_path / "out/videos/libero_object_0/eval_episode_0.mp4"
    with av.open(str(video)) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height) == (360, 360)
        assert container.streams.video[0].average_rate == 20


@needs_libero
@pytest.mark.slow
def test_the_pi0_fast_page_in_all_four_suites(tmp_path: Path) -> None:
    """Two tasks of each suite and one chunk of each episode; nothing else is changed."""
    path = checkpoint(tmp_path / "policy", "pi0_fast", "base_0_rgb", "left_wrist_0_rgb")
    fewer = ("--env.task_ids=[2,7]", "--env.episode_length=10", "--eval.max_videos=1")
    info = run(PI0_FAST_COMMAND, path, tmp_path / "out", *fewer)
    assert list(info["per_group"]) == [
        "libero_object",
        "libero_spatial",
        "libero_goal",
        "libero_10",
    ]
    assert [len(group["video_paths"]) for group in info["per_group"].values()] == [2, 2, 2, 2]
    lines = (tmp_path / "out/episodes.jsonl").read_text().splitlines()
    episodes = [json.loads(line) for line in lines]
    assert len(episodes) == 8
    assert {(episode["seed"], episode["init_state"]) for episode in episodes} == {(1000, 0)}
    assert {episode["num_steps"] for episode in episodes} == {10}


@needs_libero
@pytest.mark.slow
def test_demonstrations_and_their_replay(tmp_path: Path) -> None:
    task = ("--env.type=libero", "--env.task=libero_goal", "--env.task_ids=[7]", *SMALL, *ROUGH)
    root = tmp_path / "data"
    place = ("--repo_id=local/stove", f"--root={root}")
    assert main(["collect", *task, "--episodes=2", "--noise=0", "--num_workers=2", *place]) == 0
    dataset = LeRobotDataset("local/stove", root=root)
    assert (dataset.num_episodes, dataset.fps) == (2, 20)
    item = dataset[0]
    assert item["task"] == "turn on the stove"
    assert item["observation.images.image2"].shape == (3, 32, 32)
    assert item["observation.state"].shape == (8,)
    out = tmp_path / "out"
    command = ["eval", f"--replay={root}", "--eval.max_videos=0", f"--output_dir={out}"]
    assert main(command) == 0
    info = json.loads((out / "eval_info.json").read_text())
    assert info["overall"]["pc_success"] == 100


def test_missing_assets_are_one_line_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint(tmp_path / "policy", "eo1", "image", "image2")
    empty = tmp_path / "assets"
    empty.mkdir()
    out = tmp_path / "out"
    command = ["eval", f"--policy.path={path}", "--env.type=libero", f"--output_dir={out}"]
    missing = "lacks articulated_objects/flat_stove.xml"
    one_line(capsys, [*command, f"--env.assets_dir={empty}"], missing, "hf download", out=out)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--env.task=libero_objects"], "Did you mean 'libero_object'?"),
        (["--env.task_ids=[10]"], "--env.task_ids=[10] has 10"),
        (["--env.control_mode=relativ"], "--env.control_mode"),
        pytest.param(
            ["--env.camera_name=agentview_image"], "observation.images.image2", marks=needs_libero
        ),
        pytest.param(
            ["--env.obs_type=pixels"], "observation.state with 8 dimensions", marks=needs_libero
        ),
        (["--env.camera_names=agentview_image"], "--env.camera_names"),
    ],
)
def test_mistakes_are_one_line(
    flags: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint(tmp_path / "policy", "eo1", "image", "image2")
    out = tmp_path / "out"
    command = ["eval", f"--policy.path={path}", "--env.type=libero", f"--output_dir={out}"]
    one_line(capsys, [*command, *flags], words, out=out)
