# SPDX-License-Identifier: Apache-2.0
"""The other side of a comparison: a script run by a Python that has LeRobot.

The process lives as long as the benchmark and answers one JSON line per request, so both sides stay
warm and take turns. It measures itself: the pipe costs it nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.timing import Side

SCRIPTS = Path(__file__).parents[1] / "reference"


class Reference:
    """One running script of `reference/`; use it as a context manager."""

    def __init__(
        self, python: str, script: str, folder: Path, threads: int, path: str | None = None
    ) -> None:
        """Start the process.

        Args:
            python: interpreter with LeRobot.
            script: file name in `reference/`.
            folder: the inputs our side wrote, the script's only argument.
            threads: of torch.
            path: its PYTHONPATH, where LeRobot lies in a folder of its own.
        """
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by __exit__
        self._process = subprocess.Popen(
            [python, str(SCRIPTS / script), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment(threads, path),
            text=True,
        )

    @classmethod
    def from_flags(cls, flags: Namespace, script: str, folder: Path) -> Self:
        """Start the process that the flags of `make_parser` ask for."""
        return cls(flags.reference_python, script, folder, flags.threads, path=flags.reference_path)

    def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Have the script run one of its functions; returns what that returned."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"name": name, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self._log.seek(0)
            sys.exit(f"the reference stopped in {name!r}:\n{self._log.read()[-3000:]}")
        return json.loads(answer)

    def side(self, name: str, **arguments: Any) -> Side:
        """Return a side whose milliseconds the script measures."""
        return lambda: self.call(name, **arguments)["ms"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()  # closes its input, at which it ends
        self._log.close()


def environment(threads: int, path: str | None = None) -> dict[str, str]:
    """Return the environment of a measured process: offline, quiet, with so many threads."""
    # Our own sources on PYTHONPATH must not reach the reference.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        kept["PYTHONPATH"] = path
    return kept | {
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore",
    }
