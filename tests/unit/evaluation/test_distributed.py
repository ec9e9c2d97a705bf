# SPDX-License-Identifier: Apache-2.0
"""Several processes that share an evaluation, started by torchrun as on a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.evaluation.one_of_several import run
from vlakit.errors import ConfigError
from vlakit.evaluation.distributed import Ranks

WIDTH = 0.2
ROOT = Path(__file__).parents[3]


def launch(
    num_processes: int, folder: Path, *, resume: bool = False, failing: int = -1
) -> subprocess.CompletedProcess[str]:
    arguments = [str(folder), "true" if resume else "false", str(failing), str(WIDTH)]
    module = ["-m", "tests.unit.evaluation.one_of_several", *arguments]
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={num_processes}",
            *module,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def outcome(folder: Path, rank: int = 0) -> dict[str, Any]:
    return json.loads((folder / f"rank{rank}.json").read_text())


def test_processes_share_the_work_and_find_the_same(tmp_path: Path) -> None:
    run(tmp_path / "1", Ranks(), resume=False, stop_width=WIDTH)
    done = launch(3, tmp_path / "3")
    assert done.returncode == 0, done.stderr
    alone, shared = outcome(tmp_path / "1"), outcome(tmp_path / "3")
    assert shared == alone
    assert shared == outcome(tmp_path / "3", rank=2)  # everybody knows all
    assert 12 < len(alone["seeds"][1]) < 40  # decided before the end, at the same place
    logs = [(tmp_path / name / "episodes.jsonl").read_text().splitlines() for name in "13"]
    seeds = [[json.loads(line)["seed"] for line in log] for log in logs]
    assert seeds[0] == seeds[1]
    assert not list((tmp_path / "3").glob("episodes.rank*"))
    assert len(list((tmp_path / "3/videos").glob("*/*.mp4"))) == 2

    # More processes than before go on with what one did, even after half a line.
    log = tmp_path / "1/episodes.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:5]) + lines[5][:40])
    (tmp_path / "1/episodes.rank7.jsonl").write_text("".join(lines[6:9]))
    done = launch(2, tmp_path / "1", resume=True)
    assert done.returncode == 0, done.stderr
    resumed = outcome(tmp_path / "1")
    assert resumed.pop("resumed") == 8
    assert resumed == {key: alone[key] for key in resumed}
    assert len(log.read_text().splitlines()) == len(lines)
    assert not list((tmp_path / "1").glob("episodes.rank*"))


@pytest.mark.slow
def test_a_process_that_fails_ends_the_others(tmp_path: Path) -> None:
    done = launch(2, tmp_path, failing=1)
    assert done.returncode != 0
    assert "this process was told to fail" in done.stderr
    assert not (tmp_path / "rank0.json").exists()


def test_half_of_torchruns_variables_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match=r"'RANK'.*torchrun"):
        Ranks.of_this_process()
    monkeypatch.delenv("WORLD_SIZE")
    assert Ranks.of_this_process() == Ranks()
