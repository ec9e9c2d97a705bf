# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from tests.unit.evaluation.saved_evaluation import TASKS, make_result
from vlakit.cli.compare import is_comparison, main, read_arguments
from vlakit.cli.main import main as vlakit
from vlakit.errors import ConfigError

NOON = datetime(2026, 3, 4, 12, 0, 0)


def no_evaluation(argv: object) -> int:
    raise AssertionError(f"nothing is to be evaluated: {argv}")


@pytest.mark.parametrize("argv", [["--compare", "a", "b"], ["--compare=a", "b"]])
def test_two_names_and_the_rest(argv: list[str]) -> None:
    given = read_arguments(["--seed=3", *argv, "--env.task", "reach-v3"], NOON)
    assert (given.a, given.b) == ("a", "b")
    assert given.others == ["--seed=3", "--env.task", "reach-v3"]
    assert given.output_dir == Path("outputs/eval/2026-03-04/12-00-00_compare")
    assert is_comparison(argv)
    assert not is_comparison(["--compared=a"])


@pytest.mark.parametrize("flag", [["--output_dir=x/y"], ["--output_dir", "x/y"]])
def test_the_output_folder_is_ours(flag: list[str]) -> None:
    given = read_arguments([*flag, "--compare", "a", "b", "--seed=3"], NOON)
    assert given.output_dir == Path("x/y")
    assert given.others == ["--seed=3"]


@pytest.mark.parametrize("argv", [["--compare"], ["--compare", "a"], ["--compare=a", "--seed=3"]])
def test_one_name_is_too_few(argv: list[str]) -> None:
    with pytest.raises(ConfigError, match="--compare needs two"):
        read_arguments(argv, NOON)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    names = [tmp_path / "first", tmp_path / "second"]
    make_result({TASKS[0]: [True, False, False], TASKS[1]: [False]}).save(names[0])
    make_result({TASKS[0]: [True, True, True], TASKS[1]: [False]}).save(names[1])
    return names


def test_two_evaluations_give_a_table_and_two_files(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert vlakit(["eval", "--compare", *map(str, folders), f"--output_dir={out}"]) == 0
    entry = json.loads((out / "compare.json").read_text())
    assert entry["a"] == str(folders[0])
    assert [task["only_b"] for task in entry["per_task"]] == [2, 0]
    assert entry["pooled"]["pc_difference"] == 50
    assert (out / "compare.html").read_text().startswith("<!doctype html>")
    printed = capsys.readouterr().err
    assert "+50 %" in printed
    assert "Success of B minus that of A: +50.0%" in printed


def test_two_checkpoints_are_evaluated_with_the_same_flags(
    folders: list[Path], tmp_path: Path
) -> None:
    calls: list[list[str]] = []

    def evaluate(argv: object) -> int:
        assert isinstance(argv, list)
        calls.append(argv)
        folder = Path(argv[-1].partition("=")[2])
        make_result({TASKS[0]: [len(calls) == 1]}).save(folder)
        return 0

    out = tmp_path / "out"
    flags = ["--env.type=metaworld", "--seed=5"]
    assert main(["--compare", "ckpt/a", "ckpt/b", *flags, f"--output_dir={out}"], evaluate) == 0
    assert calls == [
        ["--policy.path=ckpt/a", *flags, f"--output_dir={out}/a"],
        ["--policy.path=ckpt/b", *flags, f"--output_dir={out}/b"],
    ]
    assert json.loads((out / "compare.json").read_text())["pooled"]["only_a"] == 1


def test_a_stopped_comparison_goes_on_where_it_was(tmp_path: Path) -> None:
    calls: list[list[str]] = []

    def evaluate(argv: object) -> int:
        assert isinstance(argv, list)
        calls.append(argv)
        make_result({TASKS[0]: [True]}).save(Path(argv[-1].partition("=")[2]))
        return 0

    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    (out / "a" / "eval_config.json").write_text("{}")  # begun; b was not
    argv = ["--compare", "ckpt/a", "ckpt/b", "--resume=true", f"--output_dir={out}"]
    assert main(argv, evaluate) == 0
    assert ["--resume=true" in call for call in calls] == [True, False]


def test_of_several_processes_the_first_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    argv = ["--compare", "ckpt/a", "ckpt/b", f"--output_dir={tmp_path / 'out'}"]
    assert main(argv, lambda flags: 0) == 0
    assert not (tmp_path / "out").exists()


def test_flags_without_effect_are_refused(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--seed=3 has no effect"):
        main(["--compare", *map(str, folders), "--seed=3"], no_evaluation)


def test_an_evaluation_and_a_checkpoint_are_refused(folders: list[Path], tmp_path: Path) -> None:
    argv = ["--compare", str(tmp_path), str(folders[1]), f"--output_dir={tmp_path / 'out'}"]
    with pytest.raises(ConfigError, match=r"second is a finished evaluation .* is not"):
        main(argv, no_evaluation)


def test_damaged_results_are_named(folders: list[Path], tmp_path: Path) -> None:
    path = folders[0] / "eval_info.json"
    argv = ["--compare", *map(str, folders), f"--output_dir={tmp_path / 'out'}"]
    for text, words in (("{", "cannot be read as JSON"), ('{"per_task": []}', "lacks 'overall'")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            main(argv, no_evaluation)
