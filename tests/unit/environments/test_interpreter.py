# SPDX-License-Identifier: Apache-2.0
"""A simulator in another Python environment, which has neither vlakit nor torch."""

from __future__ import annotations

import importlib
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from tests.unit.environments.toy import ToyEnvConfig
from vlakit.environments.messages import Message
from vlakit.environments.vector import VectorEnvironment
from vlakit.errors import ConfigError, SimulatorError

NEEDED = (
    "numpy",
    "numpy.libs",
    "draccus",
    "yaml",
    "_yaml",
    "mergedeep",
    "typing_inspect.py",
    "typing_extensions.py",
    "mypy_extensions.py",
    "toml",
)
"""numpy, draccus and what draccus imports, as they lie in site-packages."""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment that has only what a worker needs."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder, with_pip=False, symlinks=True)
    (theirs,) = folder.glob("lib/python*/site-packages")
    numpy_file = importlib.import_module("numpy").__file__
    assert numpy_file is not None
    ours = Path(numpy_file).parents[1]
    for name in NEEDED:
        if (ours / name).exists():
            (theirs / name).symlink_to(ours / name)
    return folder / "bin" / "python"


def first_reply(config: ToyEnvConfig) -> Message:
    with VectorEnvironment(config, num_envs=1) as envs:
        envs.reset(0, "push", 3, film=True)
        reply = envs.wait()[0]
        assert isinstance(reply, Message), reply
        return reply


def test_a_worker_needs_only_numpy_and_draccus(python: Path) -> None:
    for package in ("vlakit", "torch", "rich"):
        code = subprocess.run([str(python), "-c", f"import {package}"], stderr=subprocess.DEVNULL)
        assert code.returncode == 1, package
    here, there = first_reply(ToyEnvConfig()), first_reply(ToyEnvConfig(python=str(python)))
    assert there.fields == here.fields
    for name, array in here.arrays.items():
        np.testing.assert_array_equal(there.arrays[name], array)


def start_error(python: Path | str) -> str:
    with VectorEnvironment(ToyEnvConfig(python=str(python)), num_envs=1) as envs:
        envs.reset(0, "push", 3)
        error = envs.wait()[0]
    assert isinstance(error, SimulatorError)
    return str(error)


def test_what_is_missing_is_named(python: Path, tmp_path: Path) -> None:
    venv.create(tmp_path, with_pip=False, symlinks=True)
    bare = tmp_path / "bin" / "python"
    assert f"lacks numpy, draccus: install it with `{bare} -m pip" in start_error(bare)
    with pytest.raises(ConfigError, match=r"--env.python=/no/python cannot be run \(No such file"):
        start_error("/no/python")


def test_an_old_python_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text(
        f"#!{sys.executable}\nimport sys\nsys.version_info = (3, 8, 1)\n"
        "sys.version = '3.8.1 (old)'\ncode = sys.argv[2]\nsys.argv = ['-c', *sys.argv[3:]]\n"
        "exec(code)\n"
    )
    old.chmod(0o755)
    assert "is Python 3.8.1, expected at least 3.11" in start_error(old)
