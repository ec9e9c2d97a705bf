# SPDX-License-Identifier: Apache-2.0
"""Rows of the table of episodes, written a group at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from vlakit.datasets.feature_stats import Stats
from vlakit.datasets.writing import tables
from vlakit.datasets.writing.rolling_files import RollingFiles

ROWS_PER_GROUP = 10


class EpisodeRows:
    """Keeps rows until there are enough for a row group.

    Args:
        files: where they go.
        video_keys: cameras stored as video.
    """

    def __init__(self, files: RollingFiles, video_keys: Sequence[str]) -> None:
        self._files = files
        self._video_keys = video_keys
        self._rows: list[dict[str, Any]] = []
        self._schema: pa.Schema | None = None

    def add(self, row: dict[str, Any], stats: Stats) -> None:
        """Take one episode: its row, and its statistics as further columns."""
        columns = {
            f"stats/{name}/{key}": value.tolist()
            for name, entry in stats.items()
            for key, value in entry.items()
        }
        self._rows.append(row | columns)
        if self._schema is None:
            self._schema = tables.episode_schema(self._video_keys, stats)
        if len(self._rows) >= ROWS_PER_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait."""
        if self._rows and self._schema is not None:
            self._files.write_episodes(self._rows, self._schema)
        self._rows = []
