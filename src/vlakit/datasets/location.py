# SPDX-License-Identifier: Apache-2.0
"""Where a dataset lies: a local folder, LeRobot's home folder, or the hub (or its cache)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlakit.datasets.layout import CODEBASE_VERSION, INFO_PATH
from vlakit.errors import DatasetError

logger = logging.getLogger(__name__)

DEFAULT_REVISION = CODEBASE_VERSION


def lerobot_home() -> Path:
    """Return the folder of local datasets: $HF_LEROBOT_HOME, else `lerobot` under $HF_HOME."""
    if home := os.environ.get("HF_LEROBOT_HOME"):
        return Path(home).expanduser()
    cache = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(cache).expanduser() / "lerobot"


def default_cache_dir() -> Path:
    """Return the folder of frame caches: `frame_cache` under LeRobot's home."""
    return lerobot_home() / "frame_cache"


@dataclass
class DatasetLocation:
    """A dataset's folder, and how to fetch what it lacks.

    Attributes:
        root: folder that holds `meta/`.
        hub_revision: revision to fetch more files from; None when the folder is all there is.
    """

    repo_id: str
    root: Path
    hub_revision: str | None = None
    token: str | bool | None = None
    local_dir: Path | None = None

    def fetch(self, paths: Iterable[str]) -> None:
        """Download files (relative to the root) that are missing; local folders have no more."""
        missing = sorted({path for path in paths if not (self.root / path).is_file()})
        if missing and self.hub_revision is not None:
            _download(self.repo_id, self.hub_revision, self.token, missing, self.local_dir)


def locate(
    repo_id: str, root: str | Path | None, revision: str | None, token: str | bool | None
) -> DatasetLocation:
    """Find the dataset and make sure that its `meta/` is on disk.

    Order: `root`; `$HF_LEROBOT_HOME/<repo_id>` (only without `revision`); the hub, whose snapshots
    are kept under `$HF_LEROBOT_HOME/hub` and found there when the network is off.

    Raises:
        DatasetError: the dataset is in none of these places.
    """
    local_dir = Path(root).expanduser() if root is not None else None
    if local_dir is not None and local_dir.is_dir() and any(local_dir.iterdir()):
        if not (local_dir / INFO_PATH).is_file():
            raise DatasetError(
                f"{local_dir} has no {INFO_PATH}: it is not a LeRobot dataset, or its recording "
                "was never finalized. Give --dataset.root the folder that holds meta/."
            )
        return DatasetLocation(repo_id, local_dir)
    if local_dir is not None and local_dir.is_file():
        raise DatasetError(
            f"--dataset.root={local_dir} is a file; expected the folder of a dataset, which holds "
            "meta/."
        )
    home = lerobot_home() / repo_id
    if local_dir is None and revision is None and (home / INFO_PATH).is_file():
        return DatasetLocation(repo_id, home)
    return _locate_on_hub(repo_id, revision, token, local_dir)


def _locate_on_hub(
    repo_id: str, revision: str | None, token: str | bool | None, local_dir: Path | None
) -> DatasetLocation:
    from huggingface_hub.errors import LocalEntryNotFoundError, RevisionNotFoundError

    revisions: Sequence[str] = [revision] if revision else [DEFAULT_REVISION, "main"]
    for candidate in revisions:
        try:
            snapshot = _snapshot(repo_id, candidate, token, ["meta/*", "meta/**"], local_dir)
        except (RevisionNotFoundError, LocalEntryNotFoundError) as error:
            if candidate == revisions[-1]:
                raise DatasetError(_not_found(repo_id, revisions, local_dir, error)) from error
            continue
        if candidate != revisions[0]:
            logger.warning(
                "%s has no tag %s; reading its branch %s", repo_id, DEFAULT_REVISION, candidate
            )
        if not (snapshot / INFO_PATH).is_file():
            raise DatasetError(
                f"hub dataset {repo_id} (revision {candidate}) has no {INFO_PATH}; expected a "
                "LeRobot dataset of version v3.0 or v2.1. Check --dataset.repo_id."
            )
        return DatasetLocation(repo_id, snapshot, candidate, token, local_dir)
    raise AssertionError("unreachable: the last revision returns or raises")


def _not_found(
    repo_id: str, revisions: Sequence[str], local_dir: Path | None, error: Exception
) -> str:
    place = f"{local_dir} is empty or missing, and " if local_dir is not None else ""
    return (
        f"dataset {repo_id}: {place}neither {lerobot_home() / repo_id} nor the hub (revision "
        f"{' or '.join(revisions)}) has it: {_first_line(error)} Check --dataset.repo_id, "
        "--dataset.root, --dataset.revision and the network."
    )


def _download(
    repo_id: str,
    revision: str,
    token: str | bool | None,
    patterns: list[str],
    local_dir: Path | None,
) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError, RevisionNotFoundError

    try:
        _snapshot(repo_id, revision, token, patterns, local_dir)
    except (RevisionNotFoundError, LocalEntryNotFoundError) as error:
        raise DatasetError(
            f"hub dataset {repo_id} (revision {revision}): cannot fetch {patterns[0]} and "
            f"{len(patterns) - 1} more files: {_first_line(error)} Check the network."
        ) from error


def _snapshot(
    repo_id: str,
    revision: str,
    token: str | bool | None,
    patterns: list[str],
    local_dir: Path | None,
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(
            snapshot_download(
                repo_id,
                repo_type="dataset",
                revision=revision,
                token=token,
                allow_patterns=patterns,
                cache_dir=None if local_dir else lerobot_home() / "hub",
                local_dir=local_dir,
            )
        )
    except (RevisionNotFoundError, LocalEntryNotFoundError):
        raise
    except RepositoryNotFoundError as error:
        raise DatasetError(
            f"dataset {repo_id} is neither at {local_dir or lerobot_home() / repo_id} nor on the "
            "hub (or it is private): check --dataset.repo_id and --dataset.root; for a private one "
            "give token= or set HF_TOKEN."
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise DatasetError(
            f"dataset {repo_id} (revision {revision}) cannot be fetched from the hub: "
            f"{_first_line(error)} Check the network and --dataset.repo_id."
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".") + "."
