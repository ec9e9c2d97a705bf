# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.environments.toy import ToyEnvConfig
from tests.unit.evaluation.saved_evaluation import TASKS, make_result
from vlakit.cli.evaluate import training_rollouts
from vlakit.environments.config import RolloutConfig
from vlakit.evaluation import planner
from vlakit.evaluation.checkpoint_history import logged_rollouts


def test_rates_in_the_log_have_their_number_and_become_a_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = make_result({TASKS[0]: [True] * 3 + [False], TASKS[2]: [False] * 4})
    monkeypatch.setattr(planner, "evaluate_policy", lambda *given, **more: result)
    flags: Any = SimpleNamespace(
        env=ToyEnvConfig(task="push"),
        eval=RolloutConfig(n_episodes=4),
        seed=0,
        rename_map={},
    )
    roll_out = training_rollouts(flags, tmp_path)
    nothing: Any = None
    numbers = roll_out(nothing, nothing, nothing, 200)
    assert (numbers["pc_success"], numbers["n_episodes"]) == (37.5, 8)
    assert numbers["pc_success_low_95"] == pytest.approx(13.68, abs=0.01)  # Wilson, 3/8
    assert numbers["pc_success_high_95"] == pytest.approx(69.43, abs=0.01)
    assert numbers["pc_success/open the drawer"] == 75

    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 200, "rollouts": numbers}) + "\n")
    (point,) = logged_rollouts(str(tmp_path / "checkpoints" / "000200" / "pretrained_model"))
    assert (point.step, point.rate) == (200, 0.375)
    assert 100 * point.low == pytest.approx(numbers["pc_success_low_95"])
