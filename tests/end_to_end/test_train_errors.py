# SPDX-License-Identifier: Apache-2.0
"""Bad input to `vlakit train`: one line, exit code 2, and nothing written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.end_to_end.training_command import DATASET, train
from vlakit.errors import ConfigError

CAMERA = "observation.images.top"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy.chunk_sise=3"], "unknown flag --policy.chunk_sise. Did you mean "
                                    "'--policy.chunk_size'?"),
        (["--eval_freq=3"], "--eval_freq was renamed: use --env_eval_freq."),
        (["--policy.n_action_steps=9"], "--policy.n_action_steps=9 must be between 1 and "
                                        "--policy.chunk_size=4"),
        (["--policy.device=cuda"], "is not available; this machine has cpu"),
        (["--policy.max_action_dim=1"], "the action has "),
        (["--policy.max_state_dim=1"], "the state has "),
        (["--optimizer.lr=1"], "--optimizer.type is missing"),
        (["--optimizer.type=adamw", "--optimizer.lr=1"], "--optimizer.lr=1.0 would be ignored, as "
         "--use_policy_training_preset is true: give --policy.optimizer_lr"),
        (["--scheduler.type=constant_with_warmup"], "--scheduler.type=constant_with_warmup would "
         "be ignored"),
        (["--peft.method_type=LORA"], "--peft={'method_type': 'LORA'} is not supported yet"),
        (["--policy.vlm_base=nowhere/at-all"], "nowhere/at-all"),
        (["--dataset.root=nowhere"], "nowhere"),
        (["--dataset.episodes=[7]"], "7"),
        (["--rename_map={\"observation.images.tob\": \"a\"}"], "--rename_map names "
         "'observation.images.tob', which the dataset does not have"),
        (["--policy.push_to_hub=true"], "--policy.repo_id is missing"),
        (["--steps=0"], "--steps=0 must be 1 or more"),
        (["--policy.pretrained_path=nowhere/at-all"], "nowhere/at-all"),
    ],
)  # fmt: skip
def test_bad_flags_are_one_line_and_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    output_dir = tmp_path / "run"
    assert train(output_dir, "--steps=1", *arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("vlakit train: ")
    assert message in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert not output_dir.exists()


def test_an_existing_folder_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, "--steps=1") == 2
    assert "exists already and is not overwritten: give another one" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_where_it_happened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--steps=0"):
        train(tmp_path / "run", "--steps=0", "--debug")


def _checkpoint(tmp_path: Path) -> Path:
    assert train(tmp_path / "first", "--steps=1") == 0
    return tmp_path / "first" / "checkpoints" / "last" / "pretrained_model"


def _edit(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def test_a_camera_the_dataset_lacks_comes_with_the_closest_rename_map(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _checkpoint(tmp_path)
    for name in ("config.json", "policy_preprocessor.json"):
        _edit(folder / name, CAMERA, "observation.images.topview")
    policy = [f"--policy.path={folder}"]
    assert train(tmp_path / "run", policy=policy) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the policy needs observation.images.topview, which the dataset lacks" in error
    rename_map = json.dumps({CAMERA: "observation.images.topview"})
    assert f"--rename_map='{rename_map}'" in error
    assert not (tmp_path / "run").exists()
    renamed = ["--steps=1", f"--rename_map={rename_map}"]
    assert train(tmp_path / "run", *renamed, policy=policy) == 0


def test_damaged_weights_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _checkpoint(tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert train(tmp_path / "run", policy=[f"--policy.path={folder}"]) == 2
    assert "model.safetensors" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_missing_statistics_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "data"
    shutil.copytree(DATASET, copy)
    stats = json.loads((copy / "meta" / "stats.json").read_text(encoding="utf-8"))
    del stats["action"]
    (copy / "meta" / "stats.json").chmod(0o644)
    (copy / "meta" / "stats.json").write_text(json.dumps(stats), encoding="utf-8")
    assert train(tmp_path / "run", f"--dataset.root={copy}") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(copy / "meta") in error
    assert "'action'" in error
    assert not (tmp_path / "run").exists()


def test_a_key_that_no_version_writes_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("dataset:\n  repo_id: a\npolicy:\n  type: eo1\n  chunk_sice: 3\n")
    assert train(tmp_path / "run", f"--config_path={path}") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"unknown key 'policy.chunk_sice' in {path}. Did you mean 'chunk_size'?" in error


def test_a_loss_that_is_not_finite_stops_before_it_is_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--steps=20", "--save_freq=1", "--policy.optimizer_lr=1e30", "--log_freq=100"]
    settings = ["--policy.scheduler_warmup_steps=0", "--policy.optimizer_grad_clip_norm=0"]
    assert train(tmp_path / "run", *arguments, *settings) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the weights are lost. The last checkpoint is" in error
    assert "try a smaller --policy.optimizer_lr" in error
