# SPDX-License-Identifier: Apache-2.0
"""What do worker processes and batched plans bring to an evaluation, and what do they cost?

Meta-World (window-open-v3, 84x84 pictures, chunks of 8, 100 steps per episode) with a small EO-1:

- two workers against one (`ratio`: how many times faster the whole evaluation is, its start too)
- one policy call for all waiting episodes against one call each, with 8 workers
- a rendered step in a worker process against the same step in this process: `share_of_step` is what
  the pipe takes of it, for small pictures and for LeRobot's 480x480

    python benchmarks/evaluation_workers.py [--policy DIR] [--threads 1] [--repeats 3]

`--policy` takes a trained checkpoint, such as the demo's (its pictures are 84x84, too); without it
the weights are random, which costs the same time per plan. Prints one JSON line per case.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness.timing import OURS, REFERENCE, make_parser, report, take_turns
from harness.workload import PRESET
from rich.console import Console

from vlakit.environments.config import MetaworldEnvConfig
from vlakit.environments.messages import Message
from vlakit.environments.vector import VectorEnvironment
from vlakit.evaluation.config import EvalConfig
from vlakit.evaluation.planner import load_planner
from vlakit.evaluation.rollout import evaluate
from vlakit.features import policy_features
from vlakit.policies.eo1 import EO1Config, EO1Policy
from vlakit.policies.eo1.processor import make_processors
from vlakit.policies.stored_config import read_policy_config

ENV = MetaworldEnvConfig(
    task="window-open-v3",
    episode_length=100,
    observation_height=84,
    observation_width=84,
    crop=(0.34, 0.14, 0.94, 0.74),
)
CHUNK = 8
STEPS = 150
"""Steps that are timed for the cost of a worker."""


def write_checkpoint(folder: Path) -> None:
    """Write a policy of the demo's shape with random weights."""
    torch.manual_seed(0)
    features = policy_features(ENV.features())
    config = EO1Config(
        vlm_base=PRESET,
        device="cpu",
        dtype="float32",
        input_features={name: f for name, f in features.items() if name != "action"},
        output_features={"action": features["action"]},
        chunk_size=CHUNK,
        n_action_steps=CHUNK,
        max_state_dim=4,
        max_action_dim=4,
        image_min_pixels=84 * 84,
        image_max_pixels=84 * 84,
    )
    EO1Policy(config).save_pretrained(folder)
    numbers = {"mean": [0.0] * 4, "std": [0.3] * 4}
    stats = {"observation.state": numbers, "action": numbers}
    for pipeline in make_processors(config, stats):
        pipeline.save(folder)


def compare(
    planner: Any, sides: dict[str, EvalConfig], repeats: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return milliseconds of whole evaluations, and the median time of a plan, per side."""
    plan_ms: dict[str, list[float]] = {name: [] for name in sides}

    def run(name: str) -> float:
        result = evaluate(planner, ENV, sides[name], seed=1000, console=Console(quiet=True))
        plan_ms[name] += [ms for episode in result.episodes for ms in episode.plan_ms]
        return 1e3 * result.seconds

    times = take_turns({name: lambda name=name: run(name) for name in sides}, repeats=repeats)
    return times, {name: round(statistics.median(values), 2) for name, values in plan_ms.items()}


def rendered_step(envs: VectorEnvironment, action: np.ndarray) -> float:
    """Return the milliseconds of one step with its picture, from request to reply."""
    started = time.perf_counter()
    envs.play(0, action)
    reply = envs.wait()[0]
    elapsed_ms = 1e3 * (time.perf_counter() - started)
    assert isinstance(reply, Message), reply
    assert not reply.fields["done"]
    return elapsed_ms


def measure_pipe(side: int) -> None:
    config = replace(ENV, observation_height=side, observation_width=side, episode_length=500)
    actions = np.random.default_rng(0).uniform(-1, 1, (STEPS, 1, 4)).astype(np.float32)
    times: dict[str, list[float]] = {OURS: [], REFERENCE: []}
    with (
        VectorEnvironment(config, num_envs=1) as worker,
        VectorEnvironment(config, num_envs=1, use_processes=False) as here,
    ):
        places = {OURS: worker, REFERENCE: here}
        for envs in places.values():
            envs.reset(0, ENV.task, 1000)
            envs.wait()
        for action in actions:
            for name, envs in places.items():
                times[name].append(rendered_step(envs, action))
    # The two see the same world, so each pair differs by the pipe alone.
    extra = [ours - theirs for ours, theirs in zip(times[OURS], times[REFERENCE], strict=True)]
    extra_ms = statistics.median(extra)
    share = extra_ms / statistics.median(times[OURS])
    report(
        f"a rendered step of {side}x{side}",
        times,
        ours="in a worker process",
        reference="in this process",
        extra_ms=round(extra_ms, 3),
        share_of_step=round(share, 4),
    )


def measure_workers(planner: Any, repeats: int, num_episodes: int) -> None:
    def settings(batch_size: int, policy_batch_size: int = 0) -> EvalConfig:
        return EvalConfig(
            n_episodes=num_episodes,
            batch_size=batch_size,
            policy_batch_size=policy_batch_size,
            max_videos=0,
        )

    cases: Sequence[tuple[str, str, str, EvalConfig, EvalConfig]] = (
        ("workers", "2 workers", "1 worker", settings(2), settings(1)),
        ("plans of 8", "batched", "one by one", settings(8), settings(8, 1)),
    )
    for case, ours, reference, first, second in cases:
        times, plan_ms = compare(planner, {OURS: first, REFERENCE: second}, repeats)
        report(
            case,
            times,
            ours=ours,
            reference=reference,
            episodes=num_episodes,
            plan_ms=plan_ms[OURS],
            reference_plan_ms=plan_ms[REFERENCE],
        )


def main() -> None:
    parser = make_parser(__doc__, repeats=3, other_process=False)
    parser.add_argument("--policy", type=Path, default=None, help="folder of a checkpoint")
    parser.add_argument("--episodes", type=int, default=40, help="rollouts per evaluation")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = flags.policy or Path(folder)
        if flags.policy is None:
            write_checkpoint(checkpoint)
        config = read_policy_config(str(checkpoint))
        config = config.override({"device": "cpu", "pretrained_path": str(checkpoint)})
        planner = load_planner(config, {}, {})
        measure_workers(planner, flags.repeats, flags.episodes)
    for side in (84, 480):
        measure_pipe(side)


if __name__ == "__main__":
    main()
