# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlakit.errors import CheckpointError, DatasetError
from vlakit.files import read_json, write_json, written_whole


def test_json_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"text": "Schublade öffnen"})
    read = read_json(tmp_path / "a.json", DatasetError, missing=".", damaged="Fetch it again.")
    assert read == {"text": "Schublade öffnen"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "a.json is missing: look elsewhere."),
        (b"{", r"a.json cannot be read as JSON \(.*\). Fetch it again."),
        (b"\xff\xfe", r"a.json cannot be read as JSON \(.*\). Fetch it again."),
        (b"3", "a.json holds a int; expected a JSON object. Fetch it again."),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_json(path, CheckpointError, missing=": look elsewhere.", damaged="Fetch it again.")


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def write_half() -> None:
        with written_whole(path) as part:
            part.write_text("{")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert json.loads(path.read_text()) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]
