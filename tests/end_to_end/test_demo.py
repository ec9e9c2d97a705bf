# SPDX-License-Identifier: Apache-2.0
"""The whole demo, small: it proves the way, not the success rate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlakit.cli.main import main

pytest.importorskip("metaworld")


@pytest.mark.slow
def test_demo_records_trains_evaluates_and_reports(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    arguments = ["--episodes=2", "--steps=3", "--batch_size=4", "--n_episodes=1"]
    assert main(["demo", f"--output_dir={folder}", *arguments]) == 0

    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("data:video/mp4;base64,") == 8  # expert and three conditions, two tasks
    assert page.count("<pre>vlakit ") == 8  # collect, train, three conditions of two tasks
    kept = (folder / "dataset/meta/vlakit_collection.jsonl").read_text().splitlines()[1:]
    recorded = {json.loads(line)["seed"] for line in kept}
    info = json.loads((folder / "eval/drawer-open-v3/eval_info.json").read_text())
    assert recorded.isdisjoint(info["per_task"][0]["seeds"])
