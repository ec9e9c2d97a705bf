# SPDX-License-Identifier: Apache-2.0
"""A hub on this machine that takes uploads: repositories are made, small files are committed."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from huggingface_hub import constants


class FakeHub(ThreadingHTTPServer):
    """What was asked of the hub."""

    def __init__(self, *, refuses: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refuses = refuses
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.message = ""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        hub = self.server
        if hub.refuses:
            self.answer(403, {"error": "no write access"})
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            hub.created.append(asked)
            name = f"{asked.get('organization', 'me')}/{asked['name']}"
            self.answer(200, {"url": f"{hub.address}/{name}"})
        elif "/preupload/" in self.path:
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self.answer(200, {"files": modes})
        else:
            assert "/commit/" in self.path
            self.commit([json.loads(line) for line in body.splitlines()])
            address = f"{hub.address}/me/tok/commit/{'1' * 40}"
            self.answer(200, {"commitUrl": address, "commitOid": "1" * 40})

    def commit(self, entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            value = entry["value"]
            if entry["key"] == "header":
                self.server.message = value["summary"]
            else:
                self.server.files[value["path"]] = base64.b64decode(value["content"])

    def answer(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def fake_hub(monkeypatch: pytest.MonkeyPatch, *, refuses: bool = False) -> Iterator[FakeHub]:
    """Let huggingface_hub talk to a hub on this machine, logged in."""
    hub = FakeHub(refuses=refuses)
    thread = threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield hub
    hub.shutdown()
    hub.server_close()
    thread.join()
