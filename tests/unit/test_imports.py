# SPDX-License-Identifier: Apache-2.0
"""What must answer at once loads no torch: settings, names, errors, and every command's --help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import vlakit
from vlakit.cli.main import COMMANDS

PACKAGE = Path(vlakit.__file__).parent
LIGHT = ("features.py", "errors.py", "files.py", "progress.py", "config/*.py", "**/config.py")
LIGHT_MODULES = sorted(
    ".".join(["vlakit", *path.relative_to(PACKAGE).with_suffix("").parts])
    for pattern in LIGHT
    for path in PACKAGE.glob(pattern)
)


def heavy_modules(code: str, *arguments: str) -> set[str]:
    """Return which of the slow packages a fresh process holds after running the code."""
    code = f"import sys\n{code}\nprint(*({{'torch', 'av', 'metaworld'}} & sys.modules.keys()))"
    command = [sys.executable, "-c", code, *arguments]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return set(output.splitlines()[-1].split())


def test_settings_names_and_errors_are_light() -> None:
    assert {"vlakit.errors", "vlakit.training.config", "vlakit.config.flags"} <= set(LIGHT_MODULES)
    assert heavy_modules(f"import {', '.join(LIGHT_MODULES)}") == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_light(command: str) -> None:
    code = "from vlakit.cli.main import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass"
    assert heavy_modules(code, command, "--help") == set()


def test_a_module_that_loads_torch_would_be_seen() -> None:
    assert "torch" in heavy_modules("import vlakit.policies.base")
