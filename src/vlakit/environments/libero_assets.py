# SPDX-License-Identifier: Apache-2.0
"""Where LIBERO's meshes and textures lie, and whether they are complete.

The package hf-libero comes without them. LIBERO itself would fetch them into the home folder at
the first environment, and fail far from the cause where it cannot.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from vlakit.errors import SimulatorError

VARIABLE = "LIBERO_ASSETS"
REPOSITORY = "lerobot/libero-assets"
LIBERO_HOME = Path("~/.cache/libero/assets")
"""Where LIBERO's own download puts them."""
MANIFEST = Path(__file__).with_name("libero_assets.txt")
SUITES_OF_MANIFEST = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
FOLDERS = (
    "articulated_objects",
    "scenes",
    "stable_hope_objects",
    "stable_scanned_objects",
    "textures",
    "turbosquid_objects",
)
MOST_NAMED = 3


def find_assets(given: str | None, suites: Sequence[str]) -> Path:
    """Return the folder with LIBERO's assets, complete as far as is known.

    Tried in this order: the given folder, the variable LIBERO_ASSETS, the folder in LIBERO's
    package, the one that LIBERO's own download fills, the hub (its cache first).

    Args:
        given: `--env.assets_dir`.
        suites: What will be run: libero_90 needs files that nobody has listed.

    Raises:
        SimulatorError: There are none, or files are missing; it names them and the way to get them.
    """
    for folder, name in (
        (given, f"--env.assets_dir={given}"),
        (os.environ.get(VARIABLE), f"{VARIABLE}={os.environ.get(VARIABLE)}"),
    ):
        if folder:
            path = Path(folder).expanduser()
            _check(path, name, suites)
            return path.resolve()
    for path in _own_places():
        if path.is_dir():
            _check(path, str(path), suites)
            return path
    path = _from_hub()
    _check(path, str(path), suites)
    return path


def missing_files(folder: Path, suites: Sequence[str]) -> list[str]:
    """Return what the tasks of some suites need and the folder lacks, as paths inside it."""
    lines = MANIFEST.read_text(encoding="utf-8").splitlines()
    needed = [line for line in lines if not line.startswith("#")]
    if not any(suite in SUITES_OF_MANIFEST for suite in suites):
        needed = list(FOLDERS)
    return [name for name in needed if not (folder / name).exists()]


def _check(folder: Path, name: str, suites: Sequence[str]) -> None:
    if not folder.is_dir():
        raise SimulatorError(f"{name} is no folder, expected LIBERO's assets. {_how_to_get()}")
    missing = missing_files(folder, suites)
    if missing:
        more = len(missing) - MOST_NAMED
        rest = f" and {more} more" if more > 0 else ""
        raise SimulatorError(
            f"{name} lacks {', '.join(missing[:MOST_NAMED])}{rest}, which LIBERO opens: put them "
            f"there, or take another folder. {_how_to_get()}"
        )


def _own_places() -> list[Path]:
    spec = importlib.util.find_spec("libero")
    places = [Path(path) / "libero" / "assets" for path in _package_folders(spec)]
    return [*places, LIBERO_HOME.expanduser()]


def _package_folders(spec: object) -> Sequence[str]:
    return list(getattr(spec, "submodule_search_locations", None) or ())


def _from_hub() -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    for local_only in (True, False):
        try:
            found = snapshot_download(REPOSITORY, repo_type="dataset", local_files_only=local_only)
            return Path(found)
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
            problem = error
    raise SimulatorError(
        f"LIBERO's assets (meshes and textures) are not on this machine, and the hub "
        f"cannot be reached ({type(problem).__name__}). {_how_to_get()}"
    )


def _how_to_get() -> str:
    return (
        f"Get them with `hf download {REPOSITORY} --repo-type dataset --local-dir DIR` and give "
        f"--env.assets_dir=DIR or set {VARIABLE}=DIR."
    )
