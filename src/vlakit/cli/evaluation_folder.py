# SPDX-License-Identifier: Apache-2.0
"""The output folder of `vlakit eval`: new, or gone on with; what stays when a run breaks off."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vlakit.cli.output_folder import check_can_be_made
from vlakit.errors import ConfigError, VlakitError
from vlakit.evaluation.output_files import OutputFiles
from vlakit.evaluation.results import INFO_FILE

if TYPE_CHECKING:
    from vlakit.evaluation.distributed import Ranks


def check_folder(output_dir: Path, ranks: Ranks, *, resume: bool) -> None:
    """Make sure that an evaluation can be written there, in all processes alike.

    Raises:
        ConfigError: It cannot, or it holds an evaluation and `resume` is not asked for.
    """
    problem = _problem(output_dir, resume=resume) if ranks.is_first else None
    problem = ranks.gather(problem)[0]
    if problem is not None:
        raise ConfigError(problem)


def _problem(output_dir: Path, *, resume: bool) -> str | None:
    try:
        check_can_be_made(output_dir, "--output_dir")
    except ConfigError as error:
        return str(error)
    if resume:
        return None
    logs = OutputFiles(output_dir).logs()
    if not logs and not (output_dir / INFO_FILE).exists():
        return None
    count = sum(len(log.read_bytes().splitlines()) for log in logs)
    return (
        f"--output_dir={output_dir} holds an evaluation of {count} rollouts already: give "
        "--resume=true to go on with it, or another folder."
    )


@contextmanager
def kept_on_failure(output_dir: Path) -> Iterator[None]:
    """Remove a folder that was made for a run that broke off before any rollout was done.

    What was done stays, and whoever stopped it learns how to go on.
    """
    is_new = not output_dir.exists()
    try:
        yield
    except (VlakitError, OSError):
        files = OutputFiles(output_dir)
        has_rollouts = any(log.stat().st_size for log in files.logs())
        if is_new and not has_rollouts and not (output_dir / "errors").exists():
            shutil.rmtree(output_dir, ignore_errors=True)
        raise
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(
            f"stopped; go on with --resume=true --output_dir={output_dir} and the same flags"
        ) from stop
