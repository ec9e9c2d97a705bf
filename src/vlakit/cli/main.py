# SPDX-License-Identifier: Apache-2.0
"""`vlakit <command> [flags]`: finds the command's module, runs it, turns errors into one line."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence

from vlakit import __version__
from vlakit.errors import ConfigError, VlakitError, did_you_mean

COMMANDS = {
    "train": ("vlakit.cli.train", "train a policy on a LeRobot dataset"),
    "eval": (
        "vlakit.cli.evaluate",
        "roll a policy out in a simulator and measure its success rate",
    ),
    "collect": ("vlakit.cli.collect", "record demonstrations of scripted experts as a dataset"),
    "train-tokenizer": (
        "vlakit.cli.train_tokenizer",
        "fit a FAST action tokenizer to the actions of a dataset",
    ),
    "demo": ("vlakit.cli.demo", "collect, train and evaluate on two tasks, and write a report"),
}
"""Command -> (module with `main(argv)`, what it does). Modules are imported when they run."""

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
USER_ERROR = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit code.

    Args:
        argv: Arguments after `vlakit`; the process's own when None.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    show_traceback = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return run_command(arguments)
    except VlakitError as error:
        if show_traceback:
            raise
        print(f"{_name(arguments)}: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        return USER_ERROR
    except KeyboardInterrupt as error:
        print(f"{_name(arguments)}: {str(error) or 'stopped'}", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left (`vlakit ... | head`): that is no error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # A full or read-only disk shows wherever something is written.
        if show_traceback or error.errno not in DISK_ERRORS:
            raise
        place = error.filename or "the output folder"
        print(  # noqa: T201
            f"{_name(arguments)}: {place} cannot be written ({error.strerror}); expected a disk "
            "with room that can be written. Free some, or choose another folder.",
            file=sys.stderr,
        )
        return USER_ERROR


def run_command(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; errors are raised, not printed."""
    name, rest = (arguments[0], list(arguments[1:])) if arguments else ("--help", [])
    if name in ("--help", "-h", "help"):
        sys.stdout.write(_usage())
        return 0
    if name == "--version":
        sys.stdout.write(f"vlakit {__version__}\n")
        return 0
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS)
        raise ConfigError(f"unknown command {name!r}; expected one of {', '.join(COMMANDS)}.{hint}")
    module = importlib.import_module(COMMANDS[name][0])
    return module.main(rest) or 0


def _name(arguments: Sequence[str]) -> str:
    return f"vlakit {arguments[0]}" if arguments and arguments[0] in COMMANDS else "vlakit"


def _usage() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        ["usage: vlakit <command> [--flag=value ...]", "", "commands:", *lines, "",
         "`vlakit <command> --help` lists the flags; --debug shows the traceback of an error.", ""]
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
