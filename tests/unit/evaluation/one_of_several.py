# SPDX-License-Identifier: Apache-2.0
"""What each process of `test_distributed.py` runs, under torchrun.

usage: one_of_several.py OUTPUT_DIR true|false FAILING_RANK STOP_WHEN_DECIDED
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console

from tests.unit.environments.toy import ToyEnvConfig
from tests.unit.evaluation.test_engine import Pusher
from vlakit.errors import SimulatorError
from vlakit.evaluation.config import EvalConfig
from vlakit.evaluation.distributed import Ranks
from vlakit.evaluation.rollout import evaluate


def run(folder: Path, ranks: Ranks, *, resume: bool, stop_width: float) -> None:
    """Evaluate, and write what this process knows of the result."""
    result = evaluate(
        Pusher(),
        ToyEnvConfig(task="push,fail", goal=2.0),
        EvalConfig(
            n_episodes=40,
            batch_size=2,
            use_async_envs=False,
            max_videos=1,
            stop_when_decided=stop_width,
        ),
        seed=10,
        output_dir=folder,
        resume=resume,
        ranks=ranks,
        console=Console(quiet=True),
    )
    seeds = [[episode.seed for episode in task.episodes] for task in result.tasks]
    rewards = [[episode.sum_reward for episode in task.episodes] for task in result.tasks]
    outcome = {"seeds": seeds, "rewards": rewards, "resumed": result.num_resumed}
    (folder / f"rank{ranks.rank}.json").write_text(json.dumps(outcome))


if __name__ == "__main__":
    path, resume, failing_rank, width = sys.argv[1:]
    with Ranks.of_this_process() as ranks:
        if ranks.rank == int(failing_rank):
            raise SimulatorError("this process was told to fail")
        run(Path(path), ranks, resume=resume == "true", stop_width=float(width))
