# SPDX-License-Identifier: Apache-2.0
"""Flags, configuration files and folders that cannot work: said in one line before any work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.damage import edit_json, one_line
from tests.end_to_end.training_command import DATA, POLICY, RUN, train
from vlakit.errors import DeviceError
from vlakit.policies.eo1 import EO1Policy
from vlakit.processing import load_processors

TRAIN = ["train", *DATA, *POLICY, *RUN]
COLLECT = ["collect", "--env.type=metaworld", "--env.task=reach-v3", "--repo_id=local/a"]
TASK = "--env.task=reech-v3"
NEAREST_TASK = "Did you mean 'reach-v3'?"
MAPPING = "--policy.normalization_mapping"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output_dir = tmp_path_factory.mktemp("checkpoint") / "run"
    assert train(output_dir, "--steps=1") == 0
    return output_dir / "checkpoints" / "last" / "pretrained_model"


@pytest.mark.parametrize(
    ("command", "flag", "words"),
    [
        (TRAIN, "--batchsize=3", ("unknown flag --batchsize. Did you mean '--batch_size'?",)),
        (TRAIN, "--policy.chunk=3", ("Did you mean '--policy.chunk_size'?",)),
        (TRAIN, "--env.type=metaworl", ("Did you mean 'metaworld'?",)),
        (TRAIN, "--policy.dtype=fp16", ("--policy.dtype=fp16: expected one of auto, bfloat16",)),
        (TRAIN, "--policy.n_action_steps=5", ("--policy.n_action_steps=5", "--policy.chunk_size")),
        (TRAIN, "--policy.device=cuda:9", ("'cuda:9' is not available", "--policy.device")),
        (TRAIN, "--policy.device=gpu", ("'gpu' is no device name; expected cpu, cuda",)),
        (TRAIN, "--policy.max_action_dim=3", ("has 4 dimensions", "--policy.max_action_dim=3")),
        (TRAIN, "--policy.max_state_dim=6", ("has 7 dimensions", "--policy.max_state_dim=6")),
        (TRAIN, "--dataset.root=pyproject.toml", ("--dataset.root=pyproject.toml is a file",)),
        (TRAIN, f"{MAPPING}={{STAT: MEAN_STD}}", (f"{MAPPING} has 'STAT'", "'STATE'?")),
        (COLLECT, "--epsiodes=3", ("Did you mean '--episodes'?",)),
        (COLLECT, "--env.crob=[0,0,1,1]", ("Did you mean '--env.crop'?",)),
        (COLLECT, "--episodes=0", ("--episodes=0 must be at least 1",)),
        (COLLECT, TASK, (NEAREST_TASK,)),
        (["demo"], "--step=3", ("Did you mean '--steps'?",)),
        (["demo"], "--device=cuda:9", ("'cuda:9' is not available", "one of these with --device")),
        (["demo"], "--tasks=[reach-v3,reech-v3]", (NEAREST_TASK,)),
    ],
)
def test_flags(
    command: list[str],
    flag: str,
    words: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    folder = f"--root={out}" if command is COLLECT else f"--output_dir={out}"
    one_line(capsys, [*command, folder, flag], *words, out=out)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--policy.n_acton_steps=3", ("Did you mean '--policy.n_action_steps'?",)),
        ("--env.crob=[0,0,1,1]", ("Did you mean '--env.crop'?",)),
        (TASK, (NEAREST_TASK,)),
        ("--policy.n_action_steps=5", ("--policy.n_action_steps=5 must be between",)),
        ("--policy.max_state_dim=3", ("the state has 7 dimensions",)),
        ("--policy.use_amp=true", ("--policy.use_amp=true is not supported",)),
        (
            "--env.task=reach-v3",
            (
                "needs the cameras ['observation.images.top', 'observation.images.wrist'], the "
                "environment (--env.type=metaworld) has ['observation.image']",
                '--rename_map=\'{"observation.image": "observation.images.',
                "Nothing is left for observation.images.",
            ),
        ),
    ],
)
def test_flags_of_eval(
    flag: str,
    words: tuple[str, ...],
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    arguments = ["eval", f"--policy.path={checkpoint}", "--env.type=metaworld"]
    arguments += ["--env.task=reach-v3", f"--output_dir={out}", flag]
    one_line(capsys, arguments, *words, out=out)


@pytest.mark.parametrize("command", ["collect", "eval"])
def test_a_simulator_is_asked_for(
    command: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"collect": "--repo_id=a/b", "eval": f"--policy.path={checkpoint}"}[command]
    words = ("--env.type is required, one of libero, metaworld, pusht",)
    one_line(capsys, [command, given], *words, out=tmp_path)


@pytest.mark.parametrize("command", [TRAIN, COLLECT, ["demo"], ["eval"]])
def test_folders_that_cannot_be_made(
    command: list[str], checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    name = "--root" if command is COLLECT else "--output_dir"
    if command == ["eval"]:
        command = ["eval", f"--policy.path={checkpoint}", "--env.type=metaworld"]
        command += ["--env.task=reach-v3"]
    flag = f"{name}={tmp_path / 'file' / 'new'}"
    words = (f"{flag} cannot be made: {tmp_path / 'file'} takes no new folder", "Give another")
    one_line(capsys, [*command, flag], *words, out=tmp_path)


@pytest.mark.parametrize("command", [TRAIN, COLLECT, ["demo"]])
def test_folders_that_hold_something(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("mine")
    flag = f"--root={tmp_path}" if command is COLLECT else f"--output_dir={tmp_path}"
    one_line(capsys, [*command, flag], flag, "give another", out=tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.yaml", "batchsize: 3", ("unknown key 'batchsize' in", "Did you mean 'batch_size'?")),
        ("a.json", '{"dataset": {"repoid": "x"}}', ("Did you mean 'repo_id'?",)),
        ("a.yaml", "policy: {type: eo1, chunk: 3}", ("unknown key 'policy.chunk'",)),
        ("a.yaml", "dataset: [", ("a.yaml cannot be parsed", "Expected YAML or JSON")),
        ("a.json", "{", ("a.json cannot be", "Expect")),
        ("a.yaml", "- 1", ("a.yaml holds a list",)),
    ],
)
def test_configuration_files(
    name: str,
    text: str,
    words: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / name).write_text(text)
    out = tmp_path / "out"
    arguments = ["train", *POLICY, *RUN, f"--output_dir={out}", f"--config_path={tmp_path / name}"]
    one_line(capsys, arguments, *words, out=out)


LEROBOT_0_6_2: dict[str, Any] = {
    "checkpoint_format": "safetensors",
    "parallelism": {
        "dp_replicate": 1,
        "dp_shard": 1,
        "context_parallel": {"ring_degree": 1, "ulysses_degree": 1},
        "cfg_parallel": 1,
    },
    "accelerator": {"mixed_precision": "no", "gradient_accumulation": {"steps": 1}},
    "ema": {"enable": False, "decay": None, "inv_gamma": 1.0, "power": 0.75, "min_value": 0.0},
}


@pytest.mark.parametrize("version", ["0.6.1", "0.6.2"])
def test_train_config_of_lerobot_is_taken(version: str, checkpoint: Path, tmp_path: Path) -> None:
    content = json.loads((checkpoint / "train_config.json").read_text(encoding="utf-8"))
    assert {"peft", "job", "sample_weighting", "checkpoint_path"} <= content.keys()
    content["output_dir"] = str(tmp_path / "run")
    if version == "0.6.2":
        content |= LEROBOT_0_6_2
        content["dataset"]["exclude_episodes"] = None
    path = tmp_path / "train_config.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    from vlakit.cli.main import main

    assert main(["train", f"--config_path={path}"]) == 0
    assert (tmp_path / "run" / "checkpoints" / "000001").is_dir()
    edit_json("train_config.json", lambda c: c["dataset"].update(exclude_episodes=[1]))(tmp_path)
    assert main(["train", f"--config_path={path}", f"--output_dir={tmp_path / 'other'}"]) == 2


def test_devices_of_the_python_interface(checkpoint: Path) -> None:
    with pytest.raises(DeviceError, match="'cuda:9' is not available"):
        EO1Policy.from_pretrained(checkpoint, device="cuda:9")
    with pytest.raises(DeviceError, match="'cuda:9' is not available"):
        load_processors(checkpoint, device="cuda:9")


@pytest.mark.parametrize("command", ["train", "eval", "collect", "demo"])
def test_help_loads_nothing_heavy(command: str) -> None:
    heavy = "{'torch', 'av', 'pyarrow', 'mujoco', 'tokenizers', 'huggingface_hub'}"
    code = (
        "import sys; from vlakit.cli.main import main\n"
        f"try: main([{command!r}, '--help'])\n"
        "except SystemExit: pass\n"
        f"assert not {heavy} & sys.modules.keys(), {heavy} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
