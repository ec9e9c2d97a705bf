# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from vlakit.environments.base import TaskEntry
from vlakit.errors import ConfigError
from vlakit.evaluation.episode_log import EpisodeLog, LogEntry, LogReader
from vlakit.evaluation.results import EpisodeResult

PUSH = TaskEntry("a", 0, "push")


def entry(seed: int) -> LogEntry:
    episode = EpisodeResult(seed, success=seed % 2 == 0, plan_ms=[1.5, 2.5], num_plans=2)
    episode.ended = "success" if episode.success else "time_limit"
    return LogEntry(PUSH, "push “the” point", episode)


def test_what_is_appended_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "episodes.jsonl"
    reader = LogReader([path, tmp_path / "never.jsonl"])
    assert list(reader.new_entries()) == []
    with EpisodeLog(path) as log:
        log.append(entry(1))
        assert list(reader.new_entries()) == [entry(1)]
        log.append(entry(2))
        with path.open("a") as file:
            file.write('{"task": "pu')  # another process is writing
        assert list(reader.new_entries()) == [entry(2)]
        assert list(reader.new_entries()) == []


def test_half_a_line_is_cut_off_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    with EpisodeLog(path) as log:
        log.append(entry(1))
        log.append(entry(2))
    path.write_bytes(path.read_bytes()[:-20])
    with EpisodeLog(path) as log:
        log.append(entry(3))
    found = [line.episode.seed for line in LogReader([path]).new_entries()]
    assert found == [1, 3]
    restored = next(LogReader([path]).new_entries())
    assert restored.episode.plan_ms == [1.5, 2.5]
    assert restored.instruction == "push “the” point"


@pytest.mark.parametrize("line", ["{}", "[1]", "not json", '{"task": 1}'])
def test_other_lines_are_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(ConfigError, match=r"episodes.jsonl holds a line that is no rollout"):
        list(LogReader([path]).new_entries())
