# SPDX-License-Identifier: Apache-2.0
"""One simulator in one process of its own, spoken to over pipes.

Simulators pin different versions of everything, keep OpenGL contexts and sometimes crash: here a
crash ends the worker, and the parent says so with the last lines the worker wrote.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO, Any

from vlakit.environments.base import EnvConfig, decode_config, encode_config
from vlakit.environments.messages import Message, decode_message, encode_message
from vlakit.environments.session import EnvironmentSession
from vlakit.errors import SimulatorError, VlakitError

TIMEOUT_S = 600.0
"""A worker that says nothing for this long counts as hung."""
START = "start"
"""Request that builds the environment of a task."""
CLOSE_TIMEOUT_S = 5.0
TAIL_LINES = 3
TAIL_BYTES = 2000


class EnvironmentWorker:
    """The parent's end of a worker process; takes requests after `set_task`.

    Args:
        config: The simulator's settings.
        timeout_s: How long a reply may take.

    Raises:
        SimulatorError: From `receive`: the worker died, hangs, or its simulator cannot go on.
    """

    def __init__(self, config: EnvConfig, *, timeout_s: float = TIMEOUT_S) -> None:
        self._config = config
        self._task = ""
        self._timeout_s = timeout_s
        self._num_unread_starts = 0
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the worker)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        # A worker steps one small world: more threads only take the cores from the others.
        environment.setdefault("OMP_NUM_THREADS", "1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vlakit.environments.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to_worker, self._from_worker = self._process.stdin, self._process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._from_worker, selectors.EVENT_READ)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when a reply arrives."""
        return self._from_worker.fileno()

    def set_task(self, task: str) -> None:
        """Build the environment of a task, in the place of the one before; does not wait."""
        self._task = task
        self._num_unread_starts += 1
        fields = {"command": START, "config": encode_config(self._config), "task": task}
        self.send(Message(fields))

    def send(self, request: Message) -> None:
        """Send a request without waiting for its reply."""
        try:
            for piece in encode_message(request):
                _write_all(self._to_worker.fileno(), piece)
        except BrokenPipeError:
            pass  # It died: `receive` says why.

    def receive(self) -> Message:
        """Wait for the reply to the oldest request."""
        while self._num_unread_starts:
            self._num_unread_starts -= 1
            self._receive_one()
        return self._receive_one()

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

    def _receive_one(self) -> Message:
        deadline = time.monotonic() + self._timeout_s
        try:
            message = decode_message(lambda count: self._read(count, deadline))
        except (EOFError, TimeoutError) as error:
            raise self._failure(is_hung=isinstance(error, TimeoutError)) from error
        if "error" in message.fields:
            raise SimulatorError(message.fields["error"])
        return message

    def _read(self, count: int, deadline: float) -> bytearray:
        data = bytearray(count)
        view, done = memoryview(data), 0
        while done < count:
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            read = os.readv(self._from_worker.fileno(), [view[done:]])
            if not read:
                raise EOFError
            done += read
        return data

    def _failure(self, *, is_hung: bool) -> SimulatorError:
        if is_hung:
            self._process.kill()
        code = self._process.wait()
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - TAIL_BYTES))
        lines = self._errors.read().decode(errors="replace").split("\n")
        tail = " | ".join([line.strip() for line in lines if line.strip()][-TAIL_LINES:])
        what = f"gave no reply for {self._timeout_s:g} s" if is_hung else f"ended with code {code}"
        return SimulatorError(
            f"The worker process of --env.type={self._config.type} --env.task={self._task} {what}, "
            f"expected a reply. Its last words: {tail or '(none)'}"
        )


class LocalEnvironment:
    """The same interface without a process: requests are answered when the reply is asked for."""

    def __init__(self, config: EnvConfig) -> None:
        self._config = config
        self._session: EnvironmentSession | None = None
        self._requests: list[Message] = []

    def set_task(self, task: str) -> None:
        """Build the environment of a task, in the place of the one before."""
        self.close()
        self._session = EnvironmentSession(self._config, task)

    def send(self, request: Message) -> None:
        """Keep a request."""
        self._requests.append(request)

    def receive(self) -> Message:
        """Answer the oldest request."""
        assert self._session is not None, "set_task comes first"
        return self._session.answer(self._requests.pop(0))

    def stop(self) -> None:
        """Nothing runs between requests."""

    def close(self) -> None:
        """Free the simulator."""
        if self._session is not None:
            self._session.close()
            self._session = None


def close_all(environments: Sequence[EnvironmentWorker | LocalEnvironment]) -> None:
    """End all of them at the same time."""
    for environment in environments:
        environment.stop()
    for environment in environments:
        environment.close()


def serve(requests: IO[bytes], replies: int) -> None:
    """Answer requests until the parent closes its end: the life of a worker process.

    Args:
        requests: Where the parent writes.
        replies: Descriptor the parent reads.
    """

    def read(count: int) -> bytes:
        data = requests.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def reply(message: Message) -> None:
        for piece in encode_message(message):
            _write_all(replies, piece)

    session: EnvironmentSession | None = None
    try:
        while True:
            request = decode_message(read)
            try:
                if request.fields["command"] == START:
                    if session is not None:
                        session.close()
                    config = decode_config(request.fields["config"])
                    session = EnvironmentSession(config, request.fields["task"])
                    reply(Message({}))
                else:
                    assert session is not None, "set_task comes first"
                    reply(session.answer(request))
            except VlakitError as error:
                reply(Message({"error": str(error)}))
    except (EOFError, BrokenPipeError):
        pass
    finally:
        if session is not None:
            session.close()


def _write_all(descriptor: int, data: Any) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def main() -> None:
    """Take over stdin and stdout for messages; whatever a simulator prints goes to stderr."""
    replies = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(os.dup(0), "rb") as requests:
        serve(requests, replies)


if __name__ == "__main__":
    main()
