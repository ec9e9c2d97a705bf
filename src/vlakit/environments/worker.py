# SPDX-License-Identifier: Apache-2.0
"""The life of a worker process: one simulator, asked over stdin, answering over stdout.

It needs numpy, draccus and its simulator, nothing else of ours, so that it can live in another
Python environment; see `interpreter.py`. An exception of a simulator ends the process with its
traceback on stderr, where the parent finds it.
"""

from __future__ import annotations

import os
from typing import IO, Any

from vlakit.environments.base import decode_config
from vlakit.environments.messages import Message, decode_message, encode_message
from vlakit.environments.session import EnvironmentSession
from vlakit.errors import VlakitError

START = "start"
"""Request that builds the environment of a task."""


def serve(requests: IO[bytes], replies: int) -> None:
    """Answer requests until the parent closes its end.

    Args:
        requests: Where the parent writes.
        replies: Descriptor the parent reads.
    """

    def read(count: int) -> bytes:
        data = requests.read(count)
        if len(data) < count:
            raise EOFError
        return data

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
                    reply = Message({})
                else:
                    assert session is not None, "set_task comes first"
                    reply = session.answer(request)
            except VlakitError as error:
                reply = Message({"error": str(error)})
            for piece in encode_message(reply):
                write_all(replies, piece)
    except (EOFError, BrokenPipeError):
        pass
    finally:
        if session is not None:
            session.close()


def write_all(descriptor: int, data: Any) -> None:
    """Write all of some bytes to a descriptor."""
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
