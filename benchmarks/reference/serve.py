# SPDX-License-Identifier: Apache-2.0
"""Answers the requests of `reference_process.Reference`; runs in the reference's Python."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def serve(functions: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """Run the functions asked for on standard input, one JSON line each, until it closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the libraries print must not mix with the answers
    for line in sys.stdin:
        request = json.loads(line)
        answer = functions[request["name"]](**request["arguments"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Stopwatch:
    """Milliseconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def ms(self) -> float:
        return 1e3 * (time.perf_counter() - self._start)


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of installed packages."""
    from importlib.metadata import version

    return {package: version(package) for package in packages}
