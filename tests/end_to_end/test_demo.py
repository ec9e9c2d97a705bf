# SPDX-License-Identifier: Apache-2.0
"""The whole demo, small: it proves the way, not the success rate."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from vlakit.cli.main import main


@pytest.mark.slow
@pytest.mark.skipif(find_spec("metaworld") is None, reason="metaworld is not installed")
def test_demo_records_trains_evaluates_and_reports(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    arguments = ["--episodes=2", "--steps=3", "--batch_size=4", "--n_episodes=1"]
    assert main(["demo", f"--output_dir={folder}", *arguments]) == 0

    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("data:video/mp4;base64,") == 16  # expert, 3 conditions; 2 tasks, 2 policies
    assert page.count("<pre>vlakit ") == 10  # collect, tokenizer, twice: train, 3 conditions
    kept = (folder / "dataset/meta/vlakit_collection.jsonl").read_text().splitlines()[1:]
    recorded = {json.loads(line)["seed"] for line in kept}
    for policy in ("eo1", "pi0_fast"):
        tasks = json.loads((folder / policy / "eval/eval_info.json").read_text())["per_task"]
        assert [entry["task"] for entry in tasks] == ["window-open-v3", "window-close-v3"]
        assert all(recorded.isdisjoint(entry["seeds"]) for entry in tasks)
