# SPDX-License-Identifier: Apache-2.0
"""`vlakit eval --policy.type=expert` and `--replay` as typed, on real Meta-World."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.end_to_end.damage import one_line
from vlakit.cli.main import main
from vlakit.datasets import LeRobotDataset

pytestmark = pytest.mark.skipif(find_spec("metaworld") is None, reason="metaworld is not installed")
ENV = (
    "--env.type=metaworld",
    "--env.task=handle-press-v3",
    "--env.observation_height=56",
    "--env.observation_width=56",
)
FEW = ("--eval.batch_size=1", "--eval.n_episodes=2", "--eval.max_videos=1")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("recorded") / "data"
    flags = ["--episodes=2", "--noise=0.4", "--seed=3", "--num_workers=1", "--repo_id=local/x"]
    assert main(["collect", *ENV, *flags, f"--root={root}"]) == 0
    return root


def test_the_expert_acts_without_a_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["eval", "--policy.type=expert", *ENV, *FEW, f"--output_dir={out}"]) == 0
    info = json.loads((out / "eval_info.json").read_text())
    assert info["overall"]["pc_success"] == 100
    assert info["settings"]["policy"] == "expert"
    assert info["settings"]["env"]["observation_height"] == 56
    assert info["settings"]["command"].startswith("vlakit eval --policy.type=expert --env.type=")
    assert info["settings"]["versions"].keys() >= {"vlakit", "torch", "metaworld", "mujoco"}
    page = (out / "report.html").read_text()
    assert "expert on metaworld" in page
    assert page.count("<video ") == 1


def test_a_recording_goes_the_same_way_again(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing but the dataset is given: it knows its simulator, its seeds and its noise."""
    out = tmp_path / "out"
    assert main(["eval", f"--replay={dataset}", *FEW, f"--output_dir={out}"]) == 0
    replay = json.loads((out / "replay.json").read_text())
    assert [number["max_error"] for number in replay["state"]] == [0, 0, 0, 0]
    assert replay["findings"] == []
    info = json.loads((out / "eval_info.json").read_text())
    assert info["overall"]["pc_success"] == 100
    kept = [
        json.loads(line)["seed"]
        for line in (dataset / "meta/vlakit_collection.jsonl").read_text().splitlines()[1:]
        if json.loads(line)["success"]
    ]
    assert info["per_task"][0]["seeds"] == kept
    assert "states equal to the bit" in capsys.readouterr().err
    assert "states equal to the bit" in (out / "report.html").read_text()
    assert len(LeRobotDataset("local/x", root=dataset)) > 0


def test_a_camera_at_another_place_shows(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    camera = "--env.camera_name=corner"
    assert main(["eval", f"--replay={dataset}", camera, *FEW, f"--output_dir={out}"]) == 0
    replay = json.loads((out / "replay.json").read_text())
    assert replay["cameras"][0]["differences"][0] > 20
    assert replay["state"][0]["max_error"] == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--policy.type=expert", "--policy.dtype=float32", *ENV], "--policy.dtype is given"),
        (["--policy.type=expert", "--eval.blank_images", *ENV], "--eval.blank_images=true has no"),
        (
            ["--policy.type=expert", "--eval.instruction=x", *ENV],
            "--eval.instruction has no effect",
        ),
        (["--policy.type=expert"], "--env.type is required"),
        (["--replay={data}", "--policy.path=x"], "--policy.path is given"),
        (["--replay={data}", "--policy.type=expert"], "--policy.type=expert is given"),
        (["--replay={data}", "--env.task=reach-v3"], "no episode of --env.task=reach-v3"),
        (["--replay={data}", "--env.observation_height=84"], "recorded as (56, 56, 3)"),
        (
            ["--replay={data}", "--resume=true", "--output_dir={data}"],
            "--resume=true has no effect",
        ),
        (["--replay={data}/nothing"], "is no folder"),
    ],
)
def test_mistakes_are_one_line(
    dataset: Path,
    tmp_path: Path,
    flags: Sequence[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [flag.replace("{data}", str(dataset)) for flag in flags]
    out = tmp_path / "out"
    place = [] if any("output_dir" in flag for flag in given) else [f"--output_dir={out}"]
    one_line(capsys, ["eval", *given, *place], words, out=out)
