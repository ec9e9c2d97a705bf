# SPDX-License-Identifier: Apache-2.0
"""`vlakit collect` and `vlakit eval` as typed, on real Meta-World with a tiny EO-1."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from tests.end_to_end.damage import one_line
from vlakit.cli.main import main
from vlakit.datasets import LeRobotDataset
from vlakit.features import policy_features
from vlakit.policies.eo1.config import EO1Config
from vlakit.policies.registry import make_policy, make_processors

ENV = (
    "--env.type=metaworld",
    "--env.task=handle-press-v3,drawer-close-v3",
    "--env.observation_height=56",
    "--env.observation_width=56",
    "--env.crop=[0.25,0.15,1.0,0.9]",
)


def collect(root: Path, *flags: str) -> int:
    return main(["collect", *ENV, "--repo_id=local/tiny", f"--root={root}", *flags])


@pytest.fixture(scope="module")
def dataset_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("collected") / "data"
    assert collect(root, "--episodes=2", "--seed=3", "--num_workers=2") == 0
    return root


@pytest.fixture(scope="module")
def checkpoint(dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    meta = LeRobotDataset("local/tiny", root=dataset_root).meta
    features = policy_features(meta.features)
    config = EO1Config(
        vlm_base="tiny-qwen2.5-vl",
        device="cpu",
        chunk_size=16,
        n_action_steps=16,
        num_denoise_steps=2,
        input_features={name: f for name, f in features.items() if name != "action"},
        output_features={"action": features["action"]},
    )
    folder = tmp_path_factory.mktemp("checkpoint")
    policy = make_policy(config)
    policy.save_pretrained(folder)
    for pipeline in make_processors(policy.config, meta.stats):
        pipeline.save(folder)
    return folder


def evaluate(checkpoint: Path, output_dir: Path, *flags: str) -> dict:
    arguments = ["eval", f"--policy.path={checkpoint}", *ENV, f"--output_dir={output_dir}"]
    arguments += ["--env.episode_length=48", "--eval.n_episodes=3", *flags]
    assert main(arguments) == 0
    return json.loads((output_dir / "eval_info.json").read_text())


def test_a_note_does_not_make_an_error_two_lines(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["eval", f"--policy.path={checkpoint}", *ENV, f"--output_dir={out}"]
    other_size = ["--env.observation_height=28", "--env.observation_width=28"]  # worth a note
    device = "--policy.device=cuda:9"
    one_line(capsys, [*arguments, *other_size, device], "'cuda:9' is not available", out=out)


def rewards(info: dict) -> list[list[float]]:
    return [task["metrics"]["sum_rewards"] for task in info["per_task"]]


def test_the_dataset_holds_successes_with_their_seeds(dataset_root: Path) -> None:
    dataset = LeRobotDataset("local/tiny", root=dataset_root)
    assert (dataset.num_episodes, dataset.fps) == (4, 80)
    assert dataset.meta.tasks == ["press the handle down", "close the drawer"]
    item = dataset[0]
    assert item["observation.image"].shape == (3, 56, 56)
    assert item["observation.state"].shape == item["action"].shape == (4,)
    assert item["task"] == "press the handle down"
    lines = (dataset_root / "meta" / "vlakit_collection.jsonl").read_text().splitlines()
    settings, *attempts = map(json.loads, lines)
    assert settings["settings"]["env"]["type"] == "metaworld"
    kept = [attempt for attempt in attempts if attempt["success"]]
    assert [attempt["episode_index"] for attempt in kept] == [0, 1, 2, 3]
    assert [attempt["seed"] for attempt in attempts] == [3, 4, 3, 4]


def test_the_dataset_does_not_depend_on_the_number_of_workers(
    dataset_root: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    assert collect(alone, "--episodes=2", "--seed=3", "--num_workers=1") == 0
    first, second = (LeRobotDataset("local/tiny", root=root) for root in (dataset_root, alone))
    assert len(first) == len(second)
    for index in range(0, len(first), 7):
        ours, theirs = first[index], second[index]
        for name in ("observation.state", "action", "observation.image"):
            np.testing.assert_array_equal(ours[name].numpy(), theirs[name].numpy())


def test_collect_refuses_a_folder_that_exists(
    dataset_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collect(dataset_root) == 2
    assert f"--root={dataset_root} exists" in capsys.readouterr().err


def test_rollouts_do_not_depend_on_how_many_run_at_once(checkpoint: Path, tmp_path: Path) -> None:
    alone = evaluate(checkpoint, tmp_path / "1", "--eval.batch_size=1", "--eval.max_videos=0")
    both = evaluate(checkpoint, tmp_path / "3", "--eval.batch_size=3", "--eval.max_videos=1")
    assert [task["seeds"] for task in both["per_task"]] == [[1000, 1001, 1002]] * 2
    # Matrix products of another batch size differ in the last bit, so rewards are close, not equal.
    np.testing.assert_allclose(rewards(both), rewards(alone), rtol=1e-3)
    for ours, theirs in zip(both["per_task"], alone["per_task"], strict=True):
        assert ours["metrics"]["successes"] == theirs["metrics"]["successes"]
    for task in ("handle-press-v3_0", "drawer-close-v3_0"):
        videos = sorted((tmp_path / "3" / "videos" / task).iterdir())
        assert [video.name for video in videos] == ["eval_episode_0.mp4"]
        with av.open(str(videos[0])) as container:
            assert next(container.decode(video=0)).width == 256
    assert not (tmp_path / "1" / "videos").exists()


def test_controls_and_settings_of_the_policy_reach_the_rollout(
    checkpoint: Path, tmp_path: Path
) -> None:
    flags = ("--eval.n_episodes=1", "--eval.max_videos=0", "--eval.use_async_envs=false")
    plain = evaluate(checkpoint, tmp_path / "plain", *flags)
    for index, change in enumerate(
        ("--eval.blank_images=true", "--eval.instruction=sing", "--policy.n_action_steps=4")
    ):
        changed = evaluate(checkpoint, tmp_path / str(index), *flags, change)
        assert rewards(changed) != rewards(plain), change


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--env.type=metaworl"], "Did you mean 'metaworld'?"),
        (["--env.task=handle-pres-v3"], "Did you mean 'handle-press-v3'?"),
        (['--rename_map={"observation.image": "observation.images.a"}'], "leave it out"),
        (["--policy.n_action_steps=17"], "n_action_steps"),
        (["--eval.n_episodes=0"], "--eval.n_episodes=0"),
        (["--eval.n_episode=2"], "--eval.n_episodes"),
        (["--policy.device=cuda:99"], "cuda:99"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    checkpoint: Path,
    tmp_path: Path,
    flags: Sequence[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    names = [flag.split("=")[0] for flag in flags]
    base = [flag for flag in ENV if flag.split("=")[0] not in names]
    arguments = ["eval", f"--policy.path={checkpoint}", f"--output_dir={out}", *base, *flags]
    assert main(arguments) == 2
    message = capsys.readouterr().err.strip()
    assert words in message
    assert message.startswith("vlakit eval: ")
    assert not out.exists()


def test_a_checkpoint_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", *ENV]) == 2
    assert "--policy.path is missing" in capsys.readouterr().err
