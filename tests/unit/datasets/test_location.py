# SPDX-License-Identifier: Apache-2.0
"""Datasets from the hub: a small server speaks its protocol, huggingface_hub is the client."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from huggingface_hub import constants

from vlakit.datasets import LeRobotDataset
from vlakit.errors import DatasetError

TOKEN = "hf_secret"
SHA = "1" * 40


class Hub(ThreadingHTTPServer):
    """A hub with one dataset, `me/toy`."""

    def __init__(self, folder: Path, revisions: tuple[str, ...], token: str | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.revisions, self.token = folder, revisions, token
        self.served: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, *, with_body: bool) -> None:
        hub, path = self.server, unquote(urlparse(self.path).path)
        allowed = hub.token in (None, self.headers.get("Authorization", "").removeprefix("Bearer "))
        if "/me/toy" not in path or not allowed:
            self.send(401 if "/me/toy" in path else 404, b"{}", error="RepoNotFound")
        elif path.startswith("/api/datasets/me/toy"):
            self.answer_api(path)
        else:
            revision, _, name = path.removeprefix("/datasets/me/toy/resolve/").partition("/")
            assert revision in (SHA, *hub.revisions)
            data = (hub.folder / name).read_bytes()
            if with_body:
                hub.served.append(name)
            self.send(200, data, etag=sha256(data).hexdigest(), body=with_body)

    def answer_api(self, path: str) -> None:
        revision = path.rpartition("/")[2]
        names = [p.relative_to(self.server.folder).as_posix() for p in self.files()]
        if revision not in (SHA, *self.server.revisions):
            self.send(404, b"{}", error="RevisionNotFound")
        elif "/tree/" in path:
            entries = [{"type": "file", "path": n, "size": 1, "oid": "2" * 40} for n in names]
            self.send(200, json.dumps(entries).encode())
        else:
            siblings = [{"rfilename": name} for name in names]
            info = {"id": "me/toy", "sha": SHA, "siblings": siblings, "private": False}
            self.send(200, json.dumps({**info, "tags": [], "downloads": 0, "likes": 0}).encode())

    def files(self) -> list[Path]:
        return sorted(path for path in self.server.folder.rglob("*") if path.is_file())

    def send(
        self, status: int, data: bytes, *, error: str = "", etag: str = "", body: bool = True
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if error:
            self.send_header("X-Error-Code", error)
        if etag:
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", SHA)
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def hub(recorded: Path, request: pytest.FixtureRequest) -> Iterator[Hub]:
    revisions, token = getattr(request, "param", (("v3.0", "main"), None))
    server = Hub(recorded, revisions, token)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> Hub:
    """Let huggingface_hub talk to the server, with a home of its own."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "lerobot"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return hub


def test_a_hub_dataset_is_fetched_and_found_again_without_network(
    tmp_path: Path, online: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = LeRobotDataset("me/toy")
    assert (len(first), first[33]["task"]) == (34, "pick")
    assert first.root.is_relative_to(tmp_path / "lerobot" / "hub")
    assert not caplog.records
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    requests = list(online.served)
    again = LeRobotDataset("me/toy")
    assert (again.root, len(again)) == (first.root, 34)
    assert online.served == requests


def test_only_the_files_of_the_episodes_are_fetched(online: Hub) -> None:
    whole = LeRobotDataset("me/toy", online.folder).meta
    assert len(LeRobotDataset("me/toy", episodes=[1])) == 7
    fetched = {name for name in online.served if not name.startswith("meta/")}
    assert fetched == set(whole.files_of([1]))
    assert len(fetched) < len(whole.files_of([0, 1, 2]))


@pytest.mark.parametrize("hub", [(("main",), None)], indirect=True)
def test_without_the_tag_the_branch_main_is_read_and_said(
    online: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(LeRobotDataset("me/toy")) == 34
    assert "me/toy has no tag v3.0; reading its branch main" in caplog.text


def test_an_unknown_revision_is_an_error(online: Hub) -> None:
    with pytest.raises(
        DatasetError, match=r"me/toy: neither .*revision v9.* Check --dataset\.repo_"
    ):
        LeRobotDataset("me/toy", revision="v9")


@pytest.mark.parametrize("hub", [(("v3.0", "main"), TOKEN)], indirect=True)
def test_a_private_dataset_needs_the_token(online: Hub) -> None:
    with pytest.raises(DatasetError, match=r"nor on the hub \(or it is private\).*set HF_TOKEN"):
        LeRobotDataset("me/toy", token=False)
    assert len(LeRobotDataset("me/toy", token=TOKEN)) == 34


def test_root_takes_the_download(tmp_path: Path, online: Hub) -> None:
    assert LeRobotDataset("me/toy", tmp_path / "here").root == tmp_path / "here"
    assert (tmp_path / "here/meta/info.json").is_file()


def test_nothing_there_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        DatasetError, match=r"me/nothing: neither .* Check --dataset\.repo_id, --data"
    ):
        LeRobotDataset("me/nothing")


def test_lerobots_home_comes_before_the_hub(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path))
    (tmp_path / "me").mkdir()
    (tmp_path / "me/toy").symlink_to(recorded)
    assert LeRobotDataset("me/toy").root == tmp_path / "me/toy"


def test_a_folder_that_is_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").touch()
    with pytest.raises(DatasetError, match=r"has no meta/info\.json: it is not a LeRobot dataset"):
        LeRobotDataset("me/toy", tmp_path)
