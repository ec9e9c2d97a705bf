# SPDX-License-Identifier: Apache-2.0
"""Importing LIBERO without its questions, its files in the home folder and its log in /tmp."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from vlakit.errors import SimulatorError

INSTALL_LINE = "pip install 'vlakit[libero]'"


def load_libero(assets: Path) -> Path:
    """Import LIBERO without its questions, and return the folder of its package.

    LIBERO asks on stdin for a path at its first import and writes the answer into the home folder;
    robosuite keeps a log in /tmp and matplotlib a folder at home. All of them get a folder that is
    removed with this process, and LIBERO takes its assets from where they are.

    Raises:
        SimulatorError: The package is not installed.
    """
    if "libero.libero" not in sys.modules:
        folder = tempfile.TemporaryDirectory(prefix="vlakit-libero-")
        _KEPT.append(folder)
        (Path(folder.name) / "config.yaml").write_text("{}", encoding="utf-8")
        os.environ["LIBERO_CONFIG_PATH"] = folder.name
        os.environ.setdefault("MPLCONFIGDIR", folder.name)
        _silence_robosuite()
        # robosuite compares MUJOCO_EGL_DEVICE_ID with it, though the two count differently.
        devices = os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        try:
            importlib.import_module("libero.libero")
            importlib.import_module("libero.libero.envs")
        except ImportError as error:
            raise SimulatorError(
                f"--env.type=libero needs the package hf-libero, which cannot be imported "
                f"({error}): install it with `{INSTALL_LINE}`, or see docs/simulators.md for less."
            ) from error
        finally:
            if devices is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = devices
    package: Any = sys.modules["libero.libero"]
    package._assets_path_cache = str(assets)
    return Path(package.__file__).parent


def _silence_robosuite() -> None:
    """Keep robosuite from writing /tmp/robosuite.log, which fails where another user did so."""
    spec = importlib.util.find_spec("robosuite")
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        name = "robosuite.macros"
        macros = importlib.util.spec_from_file_location(name, Path(folder) / "macros.py")
        assert macros is not None
        assert macros.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(macros)
        macros.loader.exec_module(sys.modules[name])
        setattr(sys.modules[name], "FILE_LOGGING_LEVEL", None)  # noqa: B010 (no such field known)
        # Without this module robosuite says at every start that it would like to have one.
        sys.modules.setdefault("robosuite.macros_private", ModuleType("robosuite.macros_private"))


_KEPT: list[tempfile.TemporaryDirectory[str]] = []
"""Folders that are removed when the process ends."""
