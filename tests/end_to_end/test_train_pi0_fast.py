# SPDX-License-Identifier: Apache-2.0
"""pi0-FAST as a user trains it: tokenizer, training, evaluation, going on, and what is refused."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.end_to_end.damage import one_line
from tests.end_to_end.documentation import ROOT, blocks
from tests.end_to_end.fake_hub import fake_hub
from vlakit.cli.main import main
from vlakit.datasets import LeRobotDataset
from vlakit.policies.pi0_fast import PI0FastPolicy
from vlakit.processing import load_processors

ENV = (
    "--env.type=metaworld",
    "--env.task=handle-press-v3",
    "--env.observation_height=56",
    "--env.observation_width=56",
)
QUANTILES = '{"STATE": "QUANTILES", "ACTION": "QUANTILES", "VISUAL": "IDENTITY"}'
TINY = (
    "--policy.paligemma_variant=tiny",
    f"--policy.normalization_mapping={QUANTILES}",
    "--policy.max_action_tokens=64",
    "--batch_size=2",
    "--num_workers=0",
    "--policy.device=cpu",
)
GEMMA_300M = (
    "--policy.paligemma_variant=gemma_300m",
    "--policy.text_tokenizer_name=tiny-paligemma",
)
SEED_COMMAND = """
    --dataset.repo_id=your_dataset
    --policy.type=pi0_fast
    --output_dir=./outputs/pi0fast_training
    --job_name=pi0fast_training
    --policy.pretrained_path=lerobot/pi0_fast_base
    --policy.dtype=bfloat16
    --policy.gradient_checkpointing=true
    --policy.chunk_size=10
    --policy.n_action_steps=10
    --policy.max_action_tokens=256
    --steps=100000
    --batch_size=4
    --policy.device=cuda
"""
"""The command that LeRobot's page on pi0-FAST types."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lerobot") / "local" / "tiny"
    flags = ["--episodes=2", "--seed=3", "--num_workers=2", f"--root={root}"]
    assert main(["collect", *ENV, "--repo_id=local/tiny", *flags]) == 0
    return root


@pytest.fixture(scope="module")
def fast(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fast")
    flags = ["--action_horizon=10", "--vocab_size=300", "--sample_fraction=1.0"]
    command = ["train-tokenizer", "--repo_id=local/tiny", f"--root={data}", *flags]
    assert main([*command, f"--output_dir={out}"]) == 0
    return out


def train(data: Path, fast: Path, out: Path, *flags: str) -> list[str]:
    return [
        *("train", "--dataset.repo_id=local/tiny", f"--dataset.root={data}", f"--output_dir={out}"),
        *("--policy.type=pi0_fast", "--policy.chunk_size=10", "--policy.n_action_steps=10"),
        *(f"--policy.action_tokenizer_name={fast}", "--policy.push_to_hub=false", *TINY),
        *("--steps=3", "--log_freq=1", "--save_freq=2", *flags),
    ]


@pytest.fixture(scope="module")
def run(data: Path, fast: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    assert main(train(data, fast, out)) == 0
    return out


def test_the_documented_command_runs_with_small_stand_ins(
    run: Path, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its repositories and its device are replaced, and the number of steps."""
    monkeypatch.setenv("HF_LEROBOT_HOME", str(data.parent.parent))
    monkeypatch.chdir(tmp_path)
    base = run / "checkpoints" / "last" / "pretrained_model"
    command = (
        SEED_COMMAND.replace("your_dataset", "local/tiny")
        .replace("lerobot/pi0_fast_base", str(base))
        .replace("cuda", "cpu")
        .replace("100000", "2")
    )
    stand_ins = [
        "--policy.paligemma_variant=tiny",
        f"--policy.action_tokenizer_name={base / 'action_tokenizer'}",
        f"--policy.normalization_mapping={QUANTILES}",
        *("--policy.repo_id=me/policy", "--num_workers=0", "--log_freq=1"),
    ]
    with fake_hub(monkeypatch) as hub:
        assert main(["train", *shlex.split(command), *stand_ins]) == 0
    assert {"config.json", "tokenizer/tokenizer.json"} <= hub.files.keys()
    folder = tmp_path / "outputs/pi0fast_training/checkpoints/last/pretrained_model"
    policy = PI0FastPolicy.from_pretrained(folder)
    assert policy.config.dtype == "bfloat16"
    kinds = {parameter.dtype for parameter in policy.parameters()}
    assert kinds == {torch.bfloat16, torch.float32}


def test_a_checkpoint_is_whole_and_acts_with_the_network_off(run: Path, data: Path) -> None:
    folder = run / "checkpoints" / "last" / "pretrained_model"
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names >= {
        "config.json",
        "model.safetensors",
        "policy_preprocessor.json",
        "policy_preprocessor_step_3_normalizer_processor.safetensors",
        "policy_postprocessor.json",
        "policy_postprocessor_step_0_unnormalizer_processor.safetensors",
        "tokenizer/tokenizer.json",
        "action_tokenizer/processor_config.json",
        "action_tokenizer/fast_normalizer.json",
        "action_tokenizer/bpe_tokenizer/tokenizer.json",
        "train_config.json",
    }
    config = json.loads((folder / "config.json").read_text())
    assert config["normalization_mapping"]["STATE"] == "QUANTILES"
    config["text_tokenizer_name"] = config["action_tokenizer_name"] = "nobody/knows"
    (folder / "config.json").write_text(json.dumps(config))
    item = LeRobotDataset("local/tiny", data)[0]
    policy = PI0FastPolicy.from_pretrained(folder)
    preprocess, postprocess = load_processors(folder)
    raw = {k: v for k, v in item.items() if k.startswith("observation") or k == "task"}
    actions = postprocess(policy.predict_action_chunk(preprocess(raw)))
    assert actions.shape == (1, 10, 4)
    assert actions.isfinite().all()


def test_a_run_goes_on_as_if_it_had_not_stopped(
    run: Path, data: Path, fast: Path, tmp_path: Path
) -> None:
    def last(out: Path) -> list[tuple[float, float]]:
        lines = (out / "log.jsonl").read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines]
        return [(e["loss"], e["grad_norm"]) for e in entries if e.get("step") == 3][-1:]

    whole = tmp_path / "whole"
    assert main(train(data, fast, whole)) == 0
    expected = last(whole)
    checkpoint = whole / "checkpoints" / "000002" / "pretrained_model"
    assert main(["train", "--resume=true", f"--config_path={checkpoint}"]) == 0
    assert last(whole) == expected


@pytest.mark.parametrize("decoding", ["constrained", "reference"])
def test_the_result_is_evaluated(run: Path, tmp_path: Path, decoding: str) -> None:
    checkpoint = run / "checkpoints" / "last" / "pretrained_model"
    flags = ["--env.episode_length=20", "--eval.n_episodes=2", f"--policy.decoding={decoding}"]
    out = f"--output_dir={tmp_path / 'eval'}"
    assert main(["eval", f"--policy.path={checkpoint}", *ENV, *flags, out]) == 0
    info = json.loads((tmp_path / "eval" / "eval_info.json").read_text())
    assert info["overall"]["n_episodes"] == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--policy.chunk_size=12",), "fitted on chunks of 10 actions"),
        (("--policy.normalization_mapping={}",), "QUANTILES in the tokenizer, IDENTITY in the"),
        (("--policy.max_action_tokens=8",), "p99 is"),
        (("--policy.tokenizer_max_length=6",), "--policy.tokenizer_max_length=6"),
        (("--policy.text_tokenizer_name=tiny-qwen2.5-vl",), "no '<bos>'"),
        (("--policy.action_tokenizer_name=nobody/knows",), "'nobody/knows'"),
        (GEMMA_300M, "--policy.vlm_base=random"),
        (("--policy.image_resolution=[224,200]",), "does not fit the vision tower"),
    ],
)
def test_what_cannot_work_is_one_line_before_anything_is_written(
    data: Path,
    fast: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    message: str,
) -> None:
    out = tmp_path / "out"
    one_line(capsys, train(data, fast, out, *flags), message, out=out)


def test_states_outside_the_bins_are_warned_about(
    data: Path, tmp_path: Path, fast: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = '{"STATE": "MEAN_STD", "ACTION": "QUANTILES", "VISUAL": "IDENTITY"}'
    flags = (f"--policy.normalization_mapping={mixed}", "--steps=1")
    assert main(train(data, fast, tmp_path / "out", *flags)) == 0
    err = capsys.readouterr().err
    assert "of the state's values lie outside [-1, 1] after MEAN_STD" in err


def test_relative_actions_train_on_their_own_statistics(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "fast"
    relative = ["--use_relative_transform=true", "--relative_dims=0,1,2", "--vocab_size=300"]
    command = ["train-tokenizer", "--repo_id=local/tiny", f"--root={data}", "--action_horizon=10"]
    assert main([*command, *relative, f"--output_dir={out}"]) == 0
    run = tmp_path / "run"
    flags = [
        *("--policy.use_relative_actions=true", "--policy.max_action_tokens=400"),
        *("--policy.max_decoding_steps=400", "--steps=1"),
    ]
    assert main(train(data, out, run, *flags)) == 0
    folder = run / "checkpoints" / "last" / "pretrained_model"
    preprocess, postprocess = load_processors(folder)
    item = LeRobotDataset("local/tiny", data)[0]
    raw = {k: v for k, v in item.items() if k.startswith("observation") or k == "task"}
    policy = PI0FastPolicy.from_pretrained(folder)
    first = postprocess(policy.select_action(preprocess(raw)))
    moved = raw | {"observation.state": raw["observation.state"] + 1}
    policy.reset()
    again = postprocess(policy.select_action(preprocess(moved)))
    assert first.shape == again.shape == (1, 4)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on machines with few cores
def test_the_page_s_commands_and_example_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "policies" / "pi0_fast.md"
    small = ["--env.episode_length=20"]
    done = []
    for block in blocks(page, "bash"):
        for command in block.smaller().commands():
            assert main([*command, *(small if command[0] == "eval" else [])]) == 0, command
            done.append(command[0])
    assert done == ["collect", "train-tokenizer", "train", "eval"]
    item = LeRobotDataset("local/drawer", "data/drawer")[0]
    raw = {k: v for k, v in item.items() if k.startswith("observation") or k == "task"}
    names: dict[str, Any] = {"raw": raw}
    for block in blocks(page, "python"):
        exec(compile(block.text, str(block), "exec"), names)
    assert names["actions"].shape == (1, 16, 4)
    assert len(names["tokens"]) == 1
