# SPDX-License-Identifier: Apache-2.0
"""The part of an evaluation's page that shows how near a replay came to its recording."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from vlakit.errors import ConfigError
from vlakit.evaluation.html_page import note, number_cell, table, text_cell
from vlakit.evaluation.replay_findings import REPLAY_FILE
from vlakit.files import read_json

EXPLAINED = (
    "State: largest difference from the recording, and how its changes go with the recorded ones "
    "(1 the same way, -1 the other way). Pictures: mean difference of the pixels, of 255, for the "
    "picture as it is and turned."
)


def replay_part(folder: Path) -> str:
    """Return the findings and figures of a replay; nothing where there was none."""
    path = folder / REPLAY_FILE
    if not path.is_file():
        return ""
    damaged = "Run the replay again."
    entry = read_json(path, ConfigError, missing="", damaged=damaged)
    findings = "".join(f"<li>{escape(finding)}</li>" for finding in entry["findings"])
    parts = [
        f"<ul class='troubles'>{findings}</ul>" if findings else "",
        f"<p>{escape(entry['summary'])}</p>",
        _states(entry),
        _cameras(entry),
        note(EXPLAINED),
    ]
    return "".join(parts)


def _states(entry: Mapping[str, Any]) -> str:
    rows = [
        [
            text_cell(number["name"]),
            number_cell(number["max_error"], "{:.3g}"),
            number_cell(number["range"], "{:.3g}"),
            number_cell(number["motion_correlation"], "{:.2f}"),
        ]
        for number in entry["state"]
    ]
    columns = ("state", "largest difference", "recorded range", "motion")
    return table(columns, rows, label="difference of states") if rows else ""


def _cameras(entry: Mapping[str, Any]) -> str:
    rows = [
        [
            text_cell(camera["name"]),
            *(number_cell(difference, "{:.1f}") for difference in camera["differences"]),
        ]
        for camera in entry["cameras"]
    ]
    columns = ("camera", *entry["turns"])
    return table(columns, rows, label="difference of pictures") if rows else ""
