# SPDX-License-Identifier: Apache-2.0
"""Names become folders without a network, or an error that says what was tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlakit.errors import CheckpointError
from vlakit.hub import presets, push_folder, resolve


def test_folder_and_preset_are_found(tmp_path: Path) -> None:
    assert resolve(tmp_path) == tmp_path
    preset = resolve("tiny-qwen2.5-vl")
    assert preset == presets()["tiny-qwen2.5-vl"]
    assert (preset / "config.json").is_file()


def test_file_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.touch()
    with pytest.raises(CheckpointError, match="is a file; expected the folder"):
        resolve(path)


@pytest.mark.parametrize("name", ["nobody/nothing-here", "/no/such/folder", "tiny qwen"])
def test_unknown_names_are_refused_offline(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"'{name}' is no local folder"):
        resolve(name)


def test_revision_in_the_cache_is_found_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = tmp_path / "models--me--policy"
    commit = "0" * 40
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert resolve("me/policy") == snapshot
    assert resolve("me/policy", revision=commit) == snapshot
    with pytest.raises(CheckpointError, match="hub cannot be reached"):
        resolve("me/policy", revision="v2")


def test_upload_without_a_hub_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="could not be uploaded to 'me/policy'"):
        push_folder(tmp_path, "me/policy", token="none")
