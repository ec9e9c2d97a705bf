# SPDX-License-Identifier: Apache-2.0
"""What the pages tell a reader to type works: every command, every flag, every Python example."""

from __future__ import annotations

import re
import shutil
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.documentation import PAGES, ROOT, blocks
from tests.end_to_end.training_command import DATASET, train
from vlakit.cli.compare import is_comparison, read_arguments
from vlakit.cli.demo_steps import DemoFlags
from vlakit.cli.evaluate import EvalFlags
from vlakit.cli.main import COMMANDS, main
from vlakit.cli.policy_flags import PATH_FLAG
from vlakit.cli.wiring import is_check
from vlakit.collection.config import CollectConfig
from vlakit.config import parse_flags
from vlakit.datasets import LeRobotDataset
from vlakit.policies.config import register_configs
from vlakit.training.config import TrainFlags
from vlakit.training.tokenizer_config import TokenizerFlags

FLAGS = {
    "train": TrainFlags,
    "eval": EvalFlags,
    "collect": CollectConfig,
    "demo": DemoFlags,
    "train-tokenizer": TokenizerFlags,
}
COMMAND_LINES = [
    pytest.param(command, id=f"{block}-{index}-{command[0]}")
    for page in PAGES
    for block in blocks(page, "bash")
    for index, command in enumerate(block.commands())
]


@pytest.mark.parametrize("command", COMMAND_LINES)
def test_every_flag_of_a_documented_command_is_known(command: list[str]) -> None:
    name, *arguments = command
    assert name in COMMANDS
    register_configs()
    if name == "eval" and is_comparison(arguments):
        arguments = read_arguments(arguments, datetime.now()).others
        if not arguments:
            return

    def complete(raw: dict[str, Any]) -> dict[str, Any]:
        """What the command takes from a checkpoint or a recording that only the reader has."""
        if name == "eval" and is_check(raw):
            env = {"type": "metaworld", "task": "reach-v3"} | raw.pop("env", {})
            return {key: value for key, value in raw.items() if key != "policy"} | {"env": env}
        policy = {"push_to_hub": False, **raw.pop("policy", {})}
        kind = "pi0_fast" if "pi0" in policy.pop("path", "") else "eo1"
        policy = {"type": kind} | policy
        return (
            ({"dataset": {"repo_id": "x"}} if name == "train" else {})
            | raw
            | ({"policy": policy} if name in ("train", "eval") else {})
        )

    given = [argument for argument in arguments if not argument.startswith("--config_path")]
    flags = parse_flags(FLAGS[name], given, prog=name, prepare=complete, extra_flags=PATH_FLAG)
    assert isinstance(flags, FLAGS[name])


def test_every_command_is_documented() -> None:
    assert {command.values[0][0] for command in COMMAND_LINES} >= COMMANDS.keys() - {"demo"}


def test_the_tree_in_the_architecture_page_has_every_file() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    tree = text.partition("## The tree")[2].partition("## ")[0]
    words = set(re.findall(r"\w+", tree))
    words |= {f"qwen2_5_vl{word}" for word in words if word.startswith("_")}
    files = {path.stem for path in (ROOT / "src").rglob("*.py") if not path.stem.startswith("__")}
    assert files <= words, files - words


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `docs/start.md` leaves it: a dataset, and a checkpoint trained on it."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(DATASET, folder / "data/windows")
    run = folder / "outputs/train/windows"
    assert train(run, "--steps=1", "--policy.chunk_size=8", "--policy.n_action_steps=8") == 0
    return folder


@pytest.mark.parametrize("name", ["README.md", "docs/start.md", "docs/policies/eo1.md"])
def test_python_examples_act_with_a_checkpoint(
    name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    examples = list(blocks(ROOT / name, "python"))
    assert examples
    for block in examples:
        frame = LeRobotDataset("local/windows", root="data/windows")[0]
        seen = {key: value for key, value in frame.items() if key.startswith("observation.")}
        names = {"observation": seen | {"task": frame["task"]}, "raw": {**seen, "task": "close it"}}
        text = block.text.replace("outputs/train/.../", "outputs/train/windows/checkpoints/last/")
        exec(compile(text, str(block), "exec"), names)
        _check_printed(text, capsys.readouterr().out)
        actions = [names[key] for key in ("action", "actions", "chunk") if key in names]
        assert all(len(values) == 1 for values in actions)
        assert actions


def _check_printed(text: str, printed: str) -> None:
    """A shape that stands in a comment behind `print` is what comes out, but for the robot's."""
    for said in re.findall(r"print\(.*\)  # \((\d+), (\d+), \d+\)", text):
        assert printed.startswith(f"torch.Size([{said[0]}, {said[1]}, ")


def test_python_examples_of_the_data_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reading, writing = blocks(ROOT / "docs/data.md", "python")
    names: dict[str, Any] = {}
    for block in (writing, reading):
        exec(compile(block.text, str(block), "exec"), names)
    assert names["item"]["action"].shape == (16, 4)
    assert names["batch"]["observation.image"].shape == (3, 3, 84, 84)


@pytest.mark.skipif(find_spec("metaworld") is None, reason="metaworld is not installed")
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on machines with few cores
@pytest.mark.parametrize(
    "name",
    [
        "docs/start.md",
        pytest.param("README.md", marks=pytest.mark.slow),
        pytest.param("docs/simulators.md", marks=pytest.mark.slow),
        pytest.param("docs/evaluation.md", marks=pytest.mark.slow),
    ],
)
def test_the_commands_of_a_page_run_in_its_order(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = []
    for command in _commands(name):
        if command[0] == "eval" and "train" not in done:  # the page leaves that to another
            _train_on(next(Path("data").iterdir()))
            done.append("train")
        assert main(command) == 0, command
        done.append(command[0])
    assert done[0] == "collect"
    assert done[-1] == "eval"


def _commands(name: str) -> list[list[str]]:
    """Return the commands of a page; one without a recording starts from the one of another."""
    pages = ("docs/start.md", name) if name == "docs/evaluation.md" else (name,)
    commands = [
        [c for block in blocks(ROOT / page, "bash") for c in block.smaller().commands()]
        for page in pages
    ]
    earlier = [] if len(pages) == 1 else [c for c in commands[0] if c[0] == "collect"]
    return [*earlier, *commands[-1]]


def _train_on(dataset: Path) -> None:
    data = [f"--dataset.root={dataset}", "--dataset.cache_frames=true", "--steps=1"]
    assert train(Path("outputs/train/windows"), *data) == 0
