# SPDX-License-Identifier: Apache-2.0
"""Names of features: a dataset's or an environment's to the policy's, and help when they differ."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from vlakit.errors import ProcessingError
from vlakit.processing.batch import is_camera
from vlakit.processing.step import Step

V = TypeVar("V")


class RenameObservations(Step):
    """Renames observations by `rename_map`, all at once, so that two names can be swapped."""

    registry_name = "rename_observations_processor"

    def __init__(self, rename_map: Mapping[str, str] | None = None) -> None:
        self.rename_map = dict(rename_map or {})

    def config(self) -> dict[str, Any]:
        return {"rename_map": self.rename_map}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch under the policy's names.

        Raises:
            ProcessingError: two entries would get one name.
        """
        return rename_keys(batch, self.rename_map) if self.rename_map else batch


def rename_keys(entries: Mapping[str, V], rename_map: Mapping[str, str]) -> dict[str, V]:
    """Return the entries with `rename_map` applied to their keys and to `<key>_is_pad`.

    Statistics by feature are renamed with this too, so that a renamed state keeps its own.

    Raises:
        ProcessingError: two entries would get one name.
    """
    both = {**rename_map, **{f"{old}_is_pad": f"{new}_is_pad" for old, new in rename_map.items()}}
    renamed: dict[str, V] = {}
    for key, value in entries.items():
        name = both.get(key, key)
        if name in renamed:
            raise ProcessingError(
                f"rename_map={json.dumps(dict(rename_map))} gives two entries the name {name!r}: "
                f"the batch has {sorted(entries)}. Rename the other one too, or leave this one out."
            )
        renamed[name] = value
    return renamed


def check_cameras(
    batch: Mapping[str, Any], expected: Sequence[str], *, giver: str = "the batch"
) -> None:
    """Make sure that the batch has every camera that the policy was made for.

    Args:
        batch: what is given, by name.
        expected: names of the policy's cameras.
        giver: where `batch` comes from, for the message.

    Raises:
        ProcessingError: a camera is missing; the message has the `rename_map` that comes closest.
    """
    missing = [name for name in expected if name not in batch]
    if not missing:
        return
    given = sorted(key for key in batch if is_camera(key) and not key.endswith("_is_pad"))
    guess = closest_rename_map(given, expected)
    advice = f"Pass --rename_map='{json.dumps(guess)}'" if guess else "Add the missing camera"
    raise ProcessingError(
        f"the checkpoint needs the cameras {list(expected)}, {giver} has {given or 'none'}: "
        f"{missing} missing. {advice} (names of the dataset or environment to the checkpoint's)."
        f"{_without_counterpart(missing, guess)}"
    )


def _without_counterpart(missing: Sequence[str], guess: Mapping[str, str]) -> str:
    left = [name for name in missing if name not in guess.values()]
    return f" Nothing is left for {', '.join(left)}: add that camera too." if guess and left else ""


def closest_rename_map(given: Collection[str], expected: Collection[str]) -> dict[str, str]:
    """Return the map from unused given names to missing expected ones that looks most likely."""
    spare = [name for name in given if name not in expected]
    missing = [name for name in expected if name not in given]
    pairs = sorted(
        ((_likeness(old, new), old, new) for old in spare for new in missing),
        key=lambda pair: -pair[0],
    )
    guess: dict[str, str] = {}
    for _, old, new in pairs:
        if old not in guess and new not in guess.values():
            guess[old] = new
    return guess


def _likeness(first: str, second: str) -> float:
    return difflib.SequenceMatcher(None, first.split(".")[-1], second.split(".")[-1]).ratio()
