# SPDX-License-Identifier: Apache-2.0
"""What a run writes, and that it can be used again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from tests.end_to_end.training_command import DATA, DATASET, POLICY, RUN, log_of, numbers, train
from vlakit.cli.train import train as run_training
from vlakit.cli.train_flags import read_flags
from vlakit.datasets import LeRobotDataset
from vlakit.policies.eo1 import EO1Policy
from vlakit.processing import load_processors

FILES = {
    "pretrained_model/config.json",
    "pretrained_model/model.safetensors",
    "pretrained_model/policy_postprocessor.json",
    "pretrained_model/policy_postprocessor_step_0_unnormalizer_processor.safetensors",
    "pretrained_model/policy_preprocessor.json",
    "pretrained_model/policy_preprocessor_step_2_normalizer_processor.safetensors",
    "pretrained_model/tokenizer/tokenizer.json",
    "pretrained_model/train_config.json",
    "pretrained_model/vlakit_config.json",
    "training_state/optimizer_param_groups.json",
    "training_state/optimizer_state.safetensors",
    "training_state/rng_state.safetensors",
    "training_state/scheduler_state.json",
    "training_state/training_step.json",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output_dir = tmp_path_factory.mktemp("train") / "run"
    arguments = ["--steps=4", "--save_freq=2", "--ema.enable=true", "--ema.decay=0.5"]
    assert train(output_dir, *arguments) == 0
    return output_dir


def test_checkpoints_have_lerobot_s_layout(run: Path) -> None:
    checkpoints = run / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["000002", "000004", "last"]
    assert os.readlink(checkpoints / "last") == "000004"
    for name in ("000002", "000004"):
        found = {
            str(path.relative_to(checkpoints / name))
            for path in (checkpoints / name).rglob("*")
            if path.is_file()
        }
        assert found >= FILES
        assert (checkpoints / name / "pretrained_model_ema" / "model.safetensors").is_file()


def test_the_log_has_one_line_per_step(run: Path) -> None:
    entries = log_of(run)
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4]
    assert {"loss", "grad_norm", "lr", "samples_per_s", "data_s", "epochs"} <= set(entries[0])
    assert all(entry["loss"] > 0 for entry in entries)


def test_the_checkpoint_loads_and_acts_without_its_dataset(run: Path) -> None:
    folder = run / "checkpoints" / "last" / "pretrained_model"
    policy = EO1Policy.from_pretrained(folder)
    preprocess, postprocess = load_processors(folder)
    item = LeRobotDataset("local/three", DATA[1].partition("=")[2])[0]
    raw = {k: v for k, v in item.items() if k.startswith("observation") or k == "task"}
    actions = postprocess(policy.predict_action_chunk(preprocess(raw)))
    assert actions.shape == (1, 4, item["action"].shape[-1])
    assert torch.isfinite(actions).all()


def test_the_average_of_the_weights_is_saved_beside_them(run: Path) -> None:
    name = "model.action_out_proj.2.weight"
    checkpoint = run / "checkpoints" / "000004"
    own = load_file(checkpoint / "pretrained_model" / "model.safetensors")[name]
    average = load_file(checkpoint / "pretrained_model_ema" / "model.safetensors")[name]
    assert not torch.equal(own, average)
    torch.testing.assert_close(own, average, atol=1e-2, rtol=0)


def test_features_come_from_the_dataset(run: Path) -> None:
    path = run / "checkpoints" / "last" / "pretrained_model" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    meta = LeRobotDataset("local/three", DATA[1].partition("=")[2]).meta
    cameras = {k for k, v in config["input_features"].items() if v["type"] == "VISUAL"}
    assert cameras == set(meta.camera_keys)
    assert config["output_features"]["action"]["shape"] == list(meta.features["action"]["shape"])
    assert all(config["input_features"][camera]["shape"][0] == 3 for camera in cameras)


def test_a_checkpoint_is_trained_on_with_its_own_settings(run: Path, tmp_path: Path) -> None:
    folder = run / "checkpoints" / "last" / "pretrained_model"
    policy = [f"--policy.path={folder}", "--policy.optimizer_lr=1e-3"]
    assert train(tmp_path / "on", "--steps=1", policy=policy) == 0
    path = tmp_path / "on/checkpoints/last/pretrained_model/config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    assert config["chunk_size"] == 4
    assert config["optimizer_lr"] == 1e-3
    assert config["pretrained_path"] == str(folder)


def test_weights_alone_are_taken_with_pretrained_path(run: Path, tmp_path: Path) -> None:
    folder = run / "checkpoints" / "last" / "pretrained_model"
    arguments = ["--steps=1", "--policy.optimizer_lr=0", f"--policy.pretrained_path={folder}"]
    settings = ["--use_policy_training_preset=false", "--optimizer.type=sgd", "--optimizer.lr=0",
                "--scheduler.type=constant_with_warmup"]  # fmt: skip
    assert train(tmp_path / "on", *arguments, *settings) == 0
    before = load_file(folder / "model.safetensors")
    after = load_file(tmp_path / "on/checkpoints/last/pretrained_model/model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_held_out_loss_and_rollouts_do_not_change_the_training(tmp_path: Path) -> None:
    seen: list[tuple[int, bool]] = []

    def rollouts(policy: Any, pre: Any, post: Any, step: int) -> dict[str, float]:
        torch.rand(7)
        seen.append((step, policy.training))
        return {"pc_success": 50.0}

    split = ["--steps=4", "--save_checkpoint=false", "--dataset.eval_split=0.4"]
    plain, busy = tmp_path / "plain", tmp_path / "busy"
    assert train(plain, *split) == 0
    extra = ["--eval_steps=2", "--max_eval_samples=3", "--env_eval_freq=3"]
    flags = read_flags([*DATA, *POLICY, *RUN, *split, *extra, f"--output_dir={busy}"])
    run_training(flags, rollouts=rollouts, console=Console(stderr=True, quiet=True))
    assert seen == [(3, False), (4, False)]
    assert numbers(busy) == numbers(plain)
    entries = log_of(busy)
    losses = [entry["eval_loss"] for entry in entries if "eval_loss" in entry]
    assert len(losses) == 2
    assert [e["rollouts"] for e in entries if "rollouts" in e] == [{"pc_success": 50.0}] * 2
    assert not (busy / "checkpoints").exists()


def test_bfloat16_trains_with_mixed_precision(tmp_path: Path) -> None:
    assert train(tmp_path / "run", "--steps=2", "--policy.dtype=bfloat16") == 0
    weights = load_file(tmp_path / "run/checkpoints/last/pretrained_model/model.safetensors")
    kinds = {value.dtype for value in weights.values()}
    assert kinds == {torch.bfloat16, torch.float32}


def test_mixed_precision_leaves_weights_and_moments_in_float32(tmp_path: Path) -> None:
    arguments = ["--steps=2", "--policy.dtype=float32", "--accelerator.mixed_precision=bf16"]
    assert train(tmp_path / "run", *arguments) == 0
    assert train(tmp_path / "plain", "--steps=2", "--policy.dtype=float32") == 0
    mixed, plain = numbers(tmp_path / "run"), numbers(tmp_path / "plain")
    assert mixed != plain
    assert [line[1] for line in mixed] == pytest.approx([line[1] for line in plain], rel=0.02)
    checkpoint = tmp_path / "run/checkpoints/last"
    for file in (
        "pretrained_model/model.safetensors",
        "training_state/optimizer_state.safetensors",
    ):
        assert {value.dtype for value in load_file(checkpoint / file).values()} == {torch.float32}
    own = json.loads((checkpoint / "pretrained_model/vlakit_config.json").read_text())
    assert own["accelerator"] == {"mixed_precision": "bf16"}


def test_a_profiled_run_says_where_its_time_goes_and_is_the_same_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--steps=4", "--profile", "--profile_steps=1", "--save_checkpoint=false"]
    assert train(tmp_path / "run", *arguments) == 0
    assert numbers(tmp_path / "run") == numbers(run)
    content = json.loads((tmp_path / "run" / "profile.json").read_text(encoding="utf-8"))
    phases = content["phases"]
    assert set(phases) == {"data_wait", "transfer", "forward", "backward", "optimizer", "other"}
    assert min(phases[name]["ms"] for name in ("forward", "backward", "optimizer")) > 0
    assert content["steps"] == 1
    assert min(content["samples_per_s"], content["tokens_per_s"], content["mfu"]) > 0
    text = capsys.readouterr().err
    assert "waiting for data" in text
    assert "MFU" in text
    assert text.index("MFU") > text.index("step       3")


def test_frames_in_memory_give_the_same_run(run: Path, tmp_path: Path) -> None:
    arguments = ["--steps=4", "--dataset.cache_frames=true", "--save_checkpoint=false"]
    assert train(tmp_path / "cached", *arguments) == 0
    assert numbers(tmp_path / "cached") == numbers(run)


def test_packed_sequences_give_the_losses_of_the_unpacked_run(tmp_path: Path) -> None:
    """Batches of four with both tasks of the dataset, and chunks that run past their episode."""
    arguments = [
        "--steps=4",
        "--batch_size=4",
        "--policy.supervise_padding_actions=false",
        "--save_checkpoint=false",
    ]
    assert train(tmp_path / "plain", *arguments) == 0
    assert train(tmp_path / "packed", *arguments, "--policy.pack_sequences=true") == 0
    plain, packed = numbers(tmp_path / "plain"), numbers(tmp_path / "packed")
    assert len(packed) == 4
    for ours, expected in zip(packed, plain, strict=True):
        assert ours == pytest.approx(expected, rel=1e-5)
    assert packed != plain  # other shapes of matrices: the flag has arrived


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on machines with few cores
def test_workers_and_a_frame_cache_give_the_same_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = [f"--dataset.frame_cache_dir={tmp_path / 'cache'}", "--dataset.frame_cache=raw"]
    arguments = ["--steps=4", "--save_checkpoint=false", *cache]
    assert train(tmp_path / "first", *arguments, "--num_workers=2") == 0
    assert numbers(tmp_path / "first") == numbers(run)
    text = capsys.readouterr().err
    assert "frames come from" in text
    assert "MB resident, data workers" in text
    entry = log_of(tmp_path / "first")[-1]
    assert 0 < entry["workers_own_memory_mb"] < entry["workers_memory_mb"]
    assert entry["memory_mb"] > 0


def test_jpeg_frames_train_and_say_how_far_off_they_are(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = [f"--dataset.frame_cache_dir={tmp_path / 'cache'}", "--dataset.frame_cache=jpeg"]
    assert train(tmp_path / "out", "--steps=4", "--save_freq=0", *cache) == 0
    assert "JPEG of quality 95: mean error" in capsys.readouterr().err
    ours, theirs = numbers(tmp_path / "out"), numbers(run)
    assert ours != theirs
    for (_, loss, *_), (_, expected, *_) in zip(ours, theirs, strict=True):
        assert loss == pytest.approx(expected, rel=0.05)
    folder = tmp_path / "out/checkpoints/last/pretrained_model"
    own = json.loads((folder / "vlakit_config.json").read_text(encoding="utf-8"))
    assert own["dataset"]["frame_cache"] == "jpeg"
    lerobot_s = json.loads((folder / "train_config.json").read_text(encoding="utf-8"))
    assert "frame_cache" not in lerobot_s["dataset"]


def test_a_schedule_that_ends_early_is_said_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--steps=2", "--policy.scheduler_decay_steps=1", "--save_checkpoint=false"]
    assert train(tmp_path / "run", *arguments) == 0
    text = capsys.readouterr().err
    notice = "the learning rate is 0 from step 1 on: 1 of 2 steps would change nothing"
    assert notice in text
    assert text.index(notice) < text.index("step       1")


def test_a_batch_larger_than_the_dataset_sees_every_frame_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--batch_size=64", "--dataset.episodes=[0]", "--steps=2"]
    assert train(tmp_path / "run", *arguments, "--save_checkpoint=false") == 0
    frames = len(LeRobotDataset("local/three", root=DATASET, episodes=[0]))
    assert f"note: --batch_size=64 is more than the {frames} frames" in capsys.readouterr().err
    assert [entry["epochs"] for entry in log_of(tmp_path / "run")] == [1.0, 2.0]


@pytest.mark.parametrize("arguments", [["--help"], ["--help", "--policy.type=eo1"]])
def test_help_needs_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from vlakit.cli.main import main\ntry: main(sys.argv[1:])\nexcept SystemExit: "
        "pass\nprint('torch' in sys.modules, 'rich' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "train", *arguments]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "False False"
    assert "--policy.type  (one of eo1" in output
    assert ("--policy.chunk_size" in output) == (len(arguments) == 2)
