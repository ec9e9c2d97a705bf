# SPDX-License-Identifier: Apache-2.0
"""From a name to a folder: a local folder, a preset of this package, or a hub repository."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from vlakit.errors import CheckpointError

CHECKPOINT_PATTERNS = ("*.json", "*.safetensors", "*.txt", "tokenizer/*", "action_tokenizer/*")
"""Files of a checkpoint: settings, weights and tokenizers. Nothing that could be code."""


def presets() -> dict[str, Path]:
    """Return the configurations that ship with this package, by name."""
    root = Path(str(files("vlakit"))) / "presets"
    return {path.name: path for path in sorted(root.iterdir()) if (path / "config.json").is_file()}


def resolve(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    patterns: Sequence[str] | None = None,
    local_only: bool = False,
) -> Path:
    """Return the folder that a name stands for.

    Tried in this order: an existing local folder, a preset of this package, a hub repository (from
    the cache when the hub cannot be reached).

    Args:
        name_or_path: such as `outputs/last/pretrained_model`, `tiny-qwen2.5-vl` or
            `Qwen/Qwen2.5-VL-3B-Instruct`.
        revision: branch, tag or commit of a hub repository.
        token: hub token for private repositories; None takes the one of the login.
        patterns: files to download; all files of a checkpoint when None.
        local_only: take a hub repository from the cache, and download nothing.

    Raises:
        CheckpointError: when the name stands for nothing that can be reached.
    """
    local = Path(name_or_path).expanduser()
    if local.is_dir():
        return local
    shipped = presets()
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    if local.exists():
        raise CheckpointError(
            f"{name_or_path} is a file; expected the folder of a checkpoint. Give its folder."
        )
    chosen = list(patterns or CHECKPOINT_PATTERNS)
    return _download(str(name_or_path), revision, token, chosen, local_only)


def _download(
    repo_id: str, revision: str | None, token: str | None, patterns: list[str], local_only: bool
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = snapshot_download(
            repo_id,
            revision=revision,
            token=token,
            allow_patterns=patterns,
            local_files_only=local_only,
        )
    except HFValidationError as error:
        raise CheckpointError(_nothing_there(repo_id)) from error
    except GatedRepoError as error:
        raise CheckpointError(
            f"hub repository {repo_id!r} is gated; expected access. Accept its terms on its page, "
            "then log in with `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(
            f"hub repository {repo_id!r} has no revision {revision!r}; expected a branch, tag or "
            "commit of it. Correct the revision."
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{_nothing_there(repo_id)} If it is private, log in with `hf auth login`."
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise CheckpointError(
            f"{repo_id!r} is no local folder and no preset ({', '.join(presets())}), is not in the "
            "hub cache, and the hub cannot be reached. Check the path, or download it once online."
        ) from error
    return Path(folder)


def _nothing_there(name: str) -> str:
    return (
        f"{name!r} is no local folder, no preset ({', '.join(presets())}) and no hub repository. "
        "Correct the name."
    )


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    message: str = "Upload policy",
) -> str:
    """Upload a checkpoint folder to the hub, creating the repository if needed.

    Args:
        folder: what to upload.
        repo_id: `owner/name`.
        private: whether a new repository is private; None takes the account's default.
        token: hub token; None takes the one of the login.
        message: title of the commit.

    Returns:
        The address of the commit.

    Raises:
        CheckpointError: when the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message)
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise CheckpointError(
            f"{folder} could not be uploaded to {repo_id!r}: {error}. Check the name, the "
            "connection and the login (`hf auth login`)."
        ) from error
    return commit.commit_url
