# SPDX-License-Identifier: Apache-2.0
"""How a worker process is started: in this Python, or in that of another environment.

Simulators pin versions that a training environment does not want, so `--env.python` may name any
interpreter. It gets our package by its folder, not by its search path: nothing else that is
installed here is seen there.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from vlakit.environments.base import EnvConfig

LEAST_VERSION = (3, 11)
NEEDED = ("numpy", "draccus")
_START = f"""
import importlib.util, json, sys
if sys.version_info < {LEAST_VERSION}:
    sys.exit(f"--env.python={{sys.executable}} is Python {{sys.version.split()[0]}}, expected at "
             "least {LEAST_VERSION[0]}.{LEAST_VERSION[1]}: make the environment with a newer one.")
missing = [name for name in {NEEDED} if importlib.util.find_spec(name) is None]
if missing:
    sys.exit(f"--env.python={{sys.executable}} lacks {{', '.join(missing)}}: install it with "
             f"`{{sys.executable}} -m pip install {{' '.join(missing)}}`.")
for name, folder in json.loads(sys.argv[1]).items():
    spec = importlib.util.spec_from_file_location(
        name, folder + "/__init__.py", submodule_search_locations=[folder])
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
from vlakit.environments.worker import main
main()
"""


def worker_command(config: EnvConfig) -> list[str]:
    """Return the command that starts a worker for a simulator."""
    if config.python is None:
        return [sys.executable, "-m", "vlakit.environments.worker"]
    return [config.python, "-c", _START, json.dumps(_packages(config))]


def worker_variables(config: EnvConfig) -> Mapping[str, str]:
    """Return the environment variables of a worker."""
    variables = dict(os.environ)
    if config.python is None:
        variables["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    # A worker steps one small world: more threads only take the cores from the others.
    variables.setdefault("OMP_NUM_THREADS", "1")
    return variables


def _packages(config: EnvConfig) -> dict[str, str]:
    """Return the folders of the packages that the worker imports: ours, and the simulator's."""
    names = dict.fromkeys(("vlakit", config.__class__.__module__.partition(".")[0]))
    files = {name: importlib.import_module(name).__file__ for name in names}
    return {name: str(Path(file).resolve().parent) for name, file in files.items() if file}
