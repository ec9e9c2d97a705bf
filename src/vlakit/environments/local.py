# SPDX-License-Identifier: Apache-2.0
"""A simulator in this process, behind the same interface as one in a worker process."""

from __future__ import annotations

from vlakit.environments.base import EnvConfig
from vlakit.environments.messages import Message
from vlakit.environments.session import EnvironmentSession


class LocalEnvironment:
    """Requests are answered when the reply is asked for; the simulator's exceptions go through.

    Args:
        config: The simulator's settings.
    """

    def __init__(self, config: EnvConfig) -> None:
        self._config = config
        self._session: EnvironmentSession | None = None
        self._requests: list[Message] = []
        self.task = ""

    def set_task(self, task: str) -> None:
        """Build the environment of a task, in the place of the one before."""
        self.close()
        self.task = task
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
