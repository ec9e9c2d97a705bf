# SPDX-License-Identifier: Apache-2.0
"""One simulator in one process of its own, spoken to over pipes: the parent's end.

Simulators pin different versions of everything, keep OpenGL contexts and sometimes crash: here a
crash ends the worker, and the parent learns how, with everything the worker wrote.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Protocol

from vlakit.environments.base import EnvConfig, encode_config
from vlakit.environments.interpreter import worker_command, worker_variables
from vlakit.environments.messages import Message, decode_message, encode_message
from vlakit.environments.worker import START, write_all
from vlakit.errors import ConfigError, SimulatorError

TIMEOUT_S = 600.0
"""A worker that says nothing for this long counts as hung."""
CLOSE_TIMEOUT_S = 5.0
UNCAUGHT = 1
"""Exit code of Python after an exception that nobody caught."""
TAIL_LINES = 3
TAIL_BYTES = 2000
MOST_WORDS = 65536
PIPE_BYTES = 1 << 20


class WorkerError(SimulatorError):
    """A worker died, hangs, or its simulator threw an exception."""

    def __init__(self, message: str, *, has_thrown: bool, while_starting: bool, words: str) -> None:
        super().__init__(message)
        self.has_thrown = has_thrown
        """An exception in Python: it would come again. False for a crash and for silence."""
        self.while_starting = while_starting
        """It happened while the environment of a task was built, before any episode."""
        self.words = words
        """The end of what the worker wrote, with the traceback."""


class EnvironmentWorker:
    """The parent's end of a worker process; takes requests after `set_task`.

    Args:
        config: The simulator's settings.
        timeout_s: How long a reply may take.

    Raises:
        ConfigError: `--env.python` cannot be run.
        WorkerError: From `receive`: the worker died or hangs.
        SimulatorError: From `receive`: its simulator cannot go on.
    """

    def __init__(self, config: EnvConfig, *, timeout_s: float = TIMEOUT_S) -> None:
        self._config = config
        self.task = ""
        self._timeout_s = timeout_s
        self._deadline = 0.0
        self._num_unread_starts = 0
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the worker)
        try:
            self._process = subprocess.Popen(
                worker_command(config),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=worker_variables(config),
                bufsize=0,
            )
        except OSError as error:
            self._errors.close()
            raise ConfigError(
                f"--env.python={config.python} cannot be run ({error.strerror}): give the path of "
                "the Python interpreter of an environment that has the simulator."
            ) from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to_worker, self._from_worker = self._process.stdin, self._process.stdout
        _widen(self._from_worker.fileno())
        os.set_blocking(self._from_worker.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._from_worker, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def deadline(self) -> float:
        """When the reply to the last request is overdue, on the clock of `time.monotonic`."""
        return self._deadline

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when a reply arrives."""
        return self._from_worker.fileno()

    def set_task(self, task: str) -> None:
        """Build the environment of a task, in the place of the one before; does not wait."""
        self.task = task
        self._num_unread_starts += 1
        fields = {"command": START, "config": encode_config(self._config), "task": task}
        self.send(Message(fields))

    def send(self, request: Message) -> None:
        """Send a request without waiting for its reply."""
        self._deadline = time.monotonic() + self._timeout_s
        try:
            for piece in encode_message(request):
                write_all(self._to_worker.fileno(), piece)
        except BrokenPipeError:
            pass  # It died: `receive` says why.

    def receive(self) -> Message:
        """Wait for the reply to the oldest request."""
        while (reply := self.receive_part()) is None:
            pass
        return reply

    def receive_part(self) -> Message | None:
        """Wait for the next message; None when it only says that a task's environment is built."""
        try:
            message = decode_message(self._read)
        except (EOFError, TimeoutError) as error:
            raise self._ended(is_hung=isinstance(error, TimeoutError)) from error
        if "error" in message.fields:
            raise SimulatorError(message.fields["error"])
        if not self._num_unread_starts:
            return message
        self._num_unread_starts -= 1
        self._deadline = time.monotonic() + self._timeout_s
        return None

    def stop(self) -> None:
        """Tell the worker to end, without waiting; it frees its renderers first."""
        self._selector.close()
        self._to_worker.close()
        self._from_worker.close()

    def close(self) -> None:
        """End the worker and wait for it."""
        self.stop()
        try:
            self._process.wait(timeout=CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _read(self, count: int) -> bytearray:
        data = bytearray(count)
        view, done = memoryview(data), 0
        while done < count:
            try:
                read = os.readv(self._from_worker.fileno(), [view[done:]])
            except BlockingIOError:
                if not self._selector.select(max(0.0, self._deadline - time.monotonic())):
                    raise TimeoutError from None
                continue
            if not read:
                raise EOFError
            done += read
        return data

    def _ended(self, *, is_hung: bool) -> WorkerError:
        if is_hung:
            self._process.kill()
        code = self._process.wait()
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - MOST_WORDS))
        words = self._errors.read().decode(errors="replace")
        lines = [line.strip() for line in words[-TAIL_BYTES:].split("\n") if line.strip()]
        what = f"gave no reply for {self._timeout_s:g} s" if is_hung else f"ended with code {code}"
        return WorkerError(
            f"The worker process of --env.type={self._config.type} --env.task={self.task} {what}, "
            f"expected a reply. Its last words: {' | '.join(lines[-TAIL_LINES:]) or '(none)'}",
            has_thrown=code == UNCAUGHT and not is_hung,
            while_starting=self._num_unread_starts > 0,
            words=words,
        )


def _widen(pipe: int) -> None:
    """Let a pipe hold a whole picture, so that both ends need not take turns; Linux only."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        # A user's limit on the size of all pipes may be used up: then it stays small.
        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


class Closeable(Protocol):
    """What ends in two steps: told to, and waited for."""

    def stop(self) -> None: ...

    def close(self) -> None: ...


def close_all(environments: Sequence[Closeable]) -> None:
    """End all of them at the same time."""
    for environment in environments:
        environment.stop()
    for environment in environments:
        environment.close()
