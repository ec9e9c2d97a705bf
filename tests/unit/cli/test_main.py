# SPDX-License-Identifier: Apache-2.0
"""`vlakit` itself: which command, and how errors come out."""

from __future__ import annotations

import importlib

import pytest

from vlakit import __version__
from vlakit.cli.main import COMMANDS, main


def test_every_command_has_a_module_with_main() -> None:
    for module, _ in COMMANDS.values():
        assert callable(importlib.import_module(module).main)


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_without_a_command_the_commands_are_listed(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert all(f"  {name}" in text for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vlakit {__version__}\n"


def test_an_unknown_command_is_one_line_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["trian"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("vlakit: unknown command 'trian'; expected one of train, eval")
    assert captured.err.endswith("Did you mean 'train'?\n")


def test_errors_name_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--nonsense"]) == 2
    assert capsys.readouterr().err.startswith("vlakit train: --nonsense has no value")
