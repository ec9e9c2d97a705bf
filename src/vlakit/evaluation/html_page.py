# SPDX-License-Identifier: Apache-2.0
"""What the pages of this package are made of: a shell that needs no network, tables, videos.

Styles and the little script that sorts tables are inside the file. The page's own policy forbids
everything else: a browser that follows it loads nothing from anywhere but this folder.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from vlakit.evaluation.success_rate import wilson_interval

EMBEDDED_BYTES = 40_000_000
"""Videos that fit into this are inside the page; further ones stay beside it, as links."""
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "media-src data: 'self' file:; img-src data:"
)


class Cell(NamedTuple):
    """One cell of a table: what is shown, and what it is sorted by."""

    html: str
    value: float | str


def text_cell(text: str) -> Cell:
    """Return a cell of plain text."""
    return Cell(escape(text), text)


def number_cell(value: float | None, form: str = "{:.0f}") -> Cell:
    """Return a cell of one number; None is a dash, sorted below all numbers."""
    return Cell("–", -1.0) if value is None else Cell(form.format(value), float(value))


def rate_cell(successes: int, num_rollouts: int) -> Cell:
    """Return a success rate with its interval, its counts and a bar."""
    if num_rollouts == 0:
        return Cell("– <span class='mute'>0 rollouts</span>", -1.0)
    low, high = wilson_interval(successes, num_rollouts)
    rate = successes / num_rollouts
    return Cell(
        f"{rate:.0%} <span class='mute'>[{low:.0%}, {high:.0%}] {successes}/{num_rollouts}</span>"
        f"<div class='bar'><i style='width:{rate:.1%}'></i>"
        f"<b style='left:{low:.1%};right:{1 - high:.1%}'></b></div>",
        rate,
    )


def page(title: str, summary: str, sections: Iterable[str]) -> str:
    """Return a whole page; empty sections are left out."""
    folder = files("vlakit.evaluation")
    style = folder.joinpath("report.css").read_text(encoding="utf-8")
    script = folder.joinpath("report.js").read_text(encoding="utf-8")
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{escape(title)}</title><style>{style}</style></head><body>",
        f"<h1>{escape(title)}</h1><p class='lead'>{escape(summary)}</p>",
        *sections,
        f"<script>{script}</script></body></html>",
    ]
    return "\n".join(part for part in parts if part)


def section(title: str, *parts: str) -> str:
    """Return a heading with what stands below it; nothing when nothing does."""
    body = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def note(text: str) -> str:
    """Return a sentence that explains."""
    return f"<p class='mute'>{escape(text)}</p>"


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, label: str) -> str:
    """Return a table that sorts by a column when its heading is clicked.

    Args:
        columns: headings.
        rows: one cell per column.
        label: what the table holds, for those who do not see it.
    """
    head = "".join(f"<th><button type='button'>{escape(name)}</button></th>" for name in columns)
    body = "".join(f"<tr>{''.join(map(_table_cell, row))}</tr>" for row in rows)
    return (
        f"<div class='wide'><table class='sortable' aria-label='{escape(label)}'>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _table_cell(cell: Cell) -> str:
    kind = "" if isinstance(cell.value, str) else " class='number'"
    return f"<td{kind} data-value='{escape(str(cell.value))}'>{cell.html}</td>"


def facts(rows: Sequence[tuple[str, str]]) -> str:
    """Return names with their values."""
    body = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows
    )
    return f"<table>{body}</table>" if body else ""


def command(text: str) -> str:
    """Return a command line with a button that copies it."""
    return (
        f"<div class='command'><pre>{escape(text)}</pre><button type='button'>copy</button></div>"
    )


def folded(title: str, body: str, *, is_open: bool = False) -> str:
    """Return something that opens at a click."""
    state = " open" if is_open else ""
    return f"<details{state}><summary>{escape(title)}</summary>{body}</details>"


class VideoShelf:
    """Puts videos into a page until there is no more room, then beside it.

    Args:
        folder: The page's folder; videos outside it are always put inside the page.
        room: Bytes of video that the page may hold.
    """

    def __init__(self, folder: Path, room: int = EMBEDDED_BYTES) -> None:
        self._folder, self._room = folder.resolve(), room
        self.num_linked = 0

    def figure(self, path: Path, caption: str, is_success: bool | None = None) -> str:
        """Return a video with the words below it."""
        verdict = ""
        if is_success is not None:
            kind, word = ("good", "success") if is_success else ("bad", "failure")
            verdict = f" <b class='{kind}'>{word}</b>"
        return (
            f"<figure><video src='{self._source(path)}#t=0.001' controls loop muted playsinline "
            f"preload='metadata'></video><figcaption>{escape(caption)}{verdict}</figcaption></figure>"
        )

    def _source(self, path: Path) -> str:
        size = path.stat().st_size
        if size <= self._room or not path.resolve().is_relative_to(self._folder):
            self._room -= size
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            return f"data:video/mp4;base64,{data}"
        self.num_linked += 1
        return quote(os.path.relpath(path.resolve(), self._folder).replace(os.sep, "/"))

    def remark(self) -> str:
        """Return which videos are not inside the page, if any."""
        if not self.num_linked:
            return ""
        return note(
            f"{self.num_linked} videos did not fit into this page and are read from the folder "
            "videos beside it: move both together."
        )
