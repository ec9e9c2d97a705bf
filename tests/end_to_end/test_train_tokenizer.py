# SPDX-License-Identifier: Apache-2.0
"""`vlakit train-tokenizer` as a user types it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.arm_recording import record_arm
from tests.end_to_end.damage import contents, edit_json, one_line
from tests.end_to_end.documentation import ROOT, blocks
from tests.end_to_end.fake_hub import fake_hub
from tests.fixtures_root import FIXTURE_ROOT
from vlakit.cli.main import main
from vlakit.processing import FastTokenizer

TINY = [
    "--policy.paligemma_variant=tiny",
    "--policy.device=cpu",
    "--policy.push_to_hub=false",
    "--steps=1",
    "--batch_size=2",
    "--num_workers=0",
]
SEED_COMMAND = """
    --repo_id "user/my-lerobot-dataset"
    --action_horizon 10
    --encoded_dims "0:6"
    --vocab_size 1024
    --scale 10.0
    --normalization_mode QUANTILES
    --output_dir "./my_fast_tokenizer"
    --push_to_hub
    --hub_repo_id "username/my-action-tokenizer"
"""
"""The command that LeRobot's page on pi0-FAST types."""


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_arm(tmp_path_factory.mktemp("arm") / "me" / "arm")


@pytest.fixture
def here(tmp_path: Path, arm: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder; the dataset lies where LeRobot keeps its own."""
    monkeypatch.setenv("HF_LEROBOT_HOME", str(arm.parent.parent))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def seed_command() -> list[str]:
    command = SEED_COMMAND.replace("user/my-lerobot-dataset", "me/arm")
    return ["train-tokenizer", *shlex.split(command)]


def test_the_documented_command_runs_as_typed(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_hub(monkeypatch) as hub:
        assert main(seed_command()) == 0
    (created,) = hub.created
    assert (created["organization"], created["name"]) == ("username", "my-action-tokenizer")
    assert not created.get("private")
    assert hub.message == "Upload FAST tokenizer trained on me/arm"
    folder = here / "my_fast_tokenizer"
    assert {"processor_config.json", "metadata.json", "report.json", "fast_normalizer.json",
            "tokenizer.json", "bpe_tokenizer/tokenizer.json"} <= hub.files.keys()  # fmt: skip
    for name, data in hub.files.items():
        assert (folder / name).read_bytes() == data
    tokenizer = FastTokenizer.from_pretrained(folder)
    assert (tokenizer.horizon, tokenizer.action_dim, tokenizer.scale) == (10, 6, 10.0)
    said = " ".join(capsys.readouterr().err.split())
    assert "(not encoded: 6 gripper)" in said  # what LeRobot would drop without a word
    assert f"pushed: {hub.address}/me/tok/commit/" in said


def test_the_flags_it_names_train_a_policy(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = FIXTURE_ROOT / "dataset/v2.1"  # its quantiles are computed, so they are the data's
    fit = ["train-tokenizer", "--repo_id=toy", f"--root={data}", "--sample_fraction=1"]
    relative = ["--use_relative_transform", "--relative_dims=0,1,2", "--action_horizon=8"]
    for more in (["--normalization_mode=QUANTILE10", "--action_horizon=6"], relative):
        assert main([*fit, *more, f"--output_dir=tok{len(more)}"]) == 0
        said = capsys.readouterr().err
        (line,) = [line for line in said.splitlines() if line.startswith("vlakit train takes it")]
        given = shlex.split(line.partition(" with ")[2])
        command = ["train", *given, "--dataset.repo_id=toy", f"--dataset.root={data}", *TINY]
        assert main([*command, f"--output_dir=run{len(more)}"]) == 0
        said = capsys.readouterr().err
        assert "action_tokenizer_name" not in said  # no word about what is lost or differs


def test_a_private_repository_is_named_after_the_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train-tokenizer", "--repo_id=me/arm", "--push_to_hub", "--hub_private"]
    with fake_hub(monkeypatch) as hub:
        assert main([*command, "--output_dir=tok/mine"]) == 0
    (created,) = hub.created
    assert created["name"] == "mine"
    assert created.get("private") or created.get("visibility") == "private"


@pytest.mark.parametrize("has_hub", [True, False])
def test_a_hub_that_refuses_is_one_error_after_the_tokenizer_is_saved(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    has_hub: bool,
) -> None:
    if has_hub:
        with fake_hub(monkeypatch, refuses=True):
            assert main(seed_command()) == 2
    else:
        assert main(seed_command()) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("vlakit train-tokenizer: the tokenizer is saved, but not pushed: ")
    assert "could not be uploaded to 'username/my-action-tokenizer'" in last
    assert FastTokenizer.from_pretrained(here / "my_fast_tokenizer").action_dim == 6


def test_defaults_encode_the_whole_action_and_say_so(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train-tokenizer", "--repo_id=me/arm", "--hub_repo_id=me/tok"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "--encoded_dims is not given: all 7 dimensions of the action are encoded (0 x, " in said
    assert "not pushed to me/tok: --push_to_hub is not given." in said
    assert "1 of 4 episodes are shorter than --action_horizon=10" in said
    assert "--policy.max_action_tokens" in said
    assert "of the --vocab_size=1024 asked for" in said
    assert "Give a larger --sample_fraction" in said
    report = json.loads((here / "fast_tokenizer_me_arm/report.json").read_text(encoding="utf-8"))
    assert [entry["name"] for entry in report["error_by_dimension"]][-1] == "gripper"
    # The same again replaces it.
    assert main(["train-tokenizer", "--repo_id=me/arm", "--scale=5"]) == 0
    assert FastTokenizer.from_pretrained(here / "fast_tokenizer_me_arm").scale == 5


def test_the_sweep_writes_its_table_and_nothing_else(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train-tokenizer", "--repo_id=me/arm", "--sample_fraction=1", "--output_dir=out"]
    assert main([*arguments, "--sweep"]) == 0
    assert sorted(path.name for path in (here / "out").iterdir()) == ["sweep.json", "sweep.md"]
    said = capsys.readouterr().err
    assert "no tokenizer was written" in said
    assert said.count("2048") == 5
    assert main(arguments) == 0  # the chosen one may follow in the same folder
    assert (here / "out/report.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--encoded_dims=0:6,7:23"], ("reaches dimension 22", "has 7: 0 x", "=0:7 for all")),
        (["--action_horizon=41"], ("--action_horizon=41", "has 40 frames")),
        (["--repo_id=me/arn"], ("dataset me/arn: neither", "Check --repo_id, --root, --revision")),
        (["--root=nowhere.txt"], ("--root=nowhere.txt is a file",)),
        (["--state_key=state", "--relative_dims=0", "--use_relative_transform"],
         ("has no feature 'state'", "--state_key")),
        (["--output_dir=full"], ("--output_dir=full holds mine.txt", "new or empty")),
        (["--output_dir=nowhere.txt"], ("--output_dir=nowhere.txt cannot be made",)),
        (["--push_to_hub", "--hub_repo_id=a/b/c"], ("'a/b/c' is no name of a hub repository",)),
        (["--vocab_size=100"], ("--vocab_size=100 must be at least 256",)),
    ],
)  # fmt: skip
def test_what_cannot_work_is_one_line_and_writes_nothing(
    arguments: list[str],
    words: tuple[str, ...],
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (here / "full").mkdir()
    (here / "full/mine.txt").touch()
    (here / "nowhere.txt").touch()
    command = ["train-tokenizer", "--repo_id=me/arm", *arguments]
    one_line(capsys, command, *words, out=here)


def test_missing_statistics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = record_arm(tmp_path / "arm", lengths=(12,))
    edit_json("meta/stats.json", lambda stats: stats.pop("action"))(root)
    command = ["train-tokenizer", "--repo_id=me/arm", f"--root={root}", f"--output_dir={tmp_path}"]
    before = contents(root)
    one_line(capsys, [*command[:-1], f"--output_dir={tmp_path / 'out'}"],
             "lack max, mean, min, std of feature 'action'", out=tmp_path / "out")  # fmt: skip
    assert contents(root) == before


def test_help_needs_no_heavy_library() -> None:
    heavy = "{'torch', 'pyarrow', 'tokenizers', 'huggingface_hub', 'numpy'}"
    code = (
        "import sys\n"
        "from vlakit.cli.main import main\n"
        "try: main(['train-tokenizer', '--help'])\n"
        f"except SystemExit: print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert "--reference  (bool; default false)" in done.stdout


def test_the_page_on_fast_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    record_arm(tmp_path / "data/two", dim=4)
    page = ROOT / "docs/fast.md"
    commands = [command for block in blocks(page, "bash") for command in block.commands()]
    fitted = [command for command in commands if command[0] == "train-tokenizer"]
    assert len(fitted) == 2
    for command in fitted:
        assert main(command) == 0
    assert (tmp_path / "sweep/sweep.md").is_file()
    (example,) = blocks(page, "python")
    exec(compile(example.text, str(example), "exec"), {})
