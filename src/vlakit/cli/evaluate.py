# SPDX-License-Identifier: Apache-2.0
"""`vlakit eval`: roll a policy out in a simulator and measure its success rate."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from vlakit.cli.compare import HELP as COMPARE_FLAG
from vlakit.cli.compare import is_comparison
from vlakit.cli.compare import main as compare_main
from vlakit.cli.policy_flags import PATH_FLAG, with_policy_path
from vlakit.cli.wiring import is_check, run_check
from vlakit.cli.wiring import prepare as prepare_check
from vlakit.config import parse_flags
from vlakit.environments.config import EnvConfig
from vlakit.errors import ConfigError
from vlakit.evaluation.config import EvalConfig
from vlakit.policies.config import PolicyConfig, register_configs

if TYPE_CHECKING:
    from vlakit.cli.evaluation_run import Actor
    from vlakit.evaluation.distributed import Ranks
    from vlakit.evaluation.planner import Processor
    from vlakit.evaluation.results import EvaluationResult
    from vlakit.policies.base import Policy
    from vlakit.training.config import TrainFlags

SUMMARY = "Roll a policy out in a simulator and measure its success rate."
TRAINING_VIDEOS = 4
"""Rollouts filmed per task while training."""


@dataclass(frozen=True, kw_only=True)
class EvalFlags:
    """Everything `vlakit eval` takes."""

    env: EnvConfig
    """The simulator; `--env.task` is a comma list of its tasks."""
    policy: PolicyConfig | None = None
    """The policy: --policy.path=<checkpoint>. --policy.type=expert, which needs no checkpoint, lets
    the simulator's scripted expert act: a check that the simulator is wired right."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    """How many rollouts, what to keep, and controls."""
    output_dir: Path | None = None
    """Where eval_info.json and videos go; default outputs/eval/<date>/<time>_<job_name>."""
    resume: bool = False
    """Go on with the evaluation in --output_dir that was stopped; the other flags as before."""
    job_name: str | None = None
    """Name of the run; default <env>_<policy>."""
    seed: int = 1000
    """Seed of the first rollout of each task; the others count on from it."""
    rename_map: dict[str, str] = field(default_factory=dict)
    """Environment name -> name the policy knows: {"observation.image": "observation.images.a"}."""
    replay: str | None = None
    """Play the recorded actions of a dataset again (folder or repository), in the place of a
    policy, and compare what the simulator shows with what was recorded."""

    def output_path(self, now: datetime) -> Path:
        """Return the output folder: given, or named after the time and the job."""
        if self.output_dir is not None:
            return self.output_dir
        check = "expert" if self.replay is None else "replay"
        actor = check if self.policy is None else self.policy.type
        name = self.job_name or f"{self.env.type}_{actor}"
        return Path("outputs/eval") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{name}"


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    # Threads of torch that spin while they wait take the cores from the simulators: on two busy
    # cores a plan took 9 times as long. Read once, when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if is_comparison(argv):
        return compare_main(argv, main)
    register_configs()
    given: dict[str, Any] = {}

    def prepare(raw: dict[str, Any]) -> dict[str, Any]:
        if is_check(raw):
            return prepare_check(raw)
        given.update(raw.get("policy") or {})
        if given.get("path") is None:
            raise ConfigError(
                "--policy.path is missing: give the checkpoint to evaluate, such as "
                "outputs/train/.../checkpoints/last/pretrained_model, or --policy.type=expert."
            )
        return with_policy_path(raw)

    flags = parse_flags(
        EvalFlags,
        argv,
        prog="vlakit eval",
        summary=SUMMARY,
        prepare=prepare,
        extra_flags=PATH_FLAG | COMPARE_FLAG,
    )
    if flags.policy is None:
        run_check(flags, Console(stderr=True), argv=argv)
        return 0
    settings = {key: value for key, value in given.items() if key not in ("path", "device")}
    run(flags, settings, Console(stderr=True), argv=argv)
    return 0


def run(
    flags: EvalFlags, overrides: Mapping[str, Any], console: Console, *, argv: Sequence[str]
) -> EvaluationResult:
    """Load the checkpoint, roll it out, write `eval_info.json` and the report, print the table.

    Args:
        flags: The command's flags.
        overrides: Settings of the policy given by flag; its processors get them too.
        console: Where progress and results are shown.
        argv: The flags as typed.
    """
    from vlakit.cli.evaluation_run import run_evaluation

    def make_actor(ranks: Ranks) -> Actor:
        return _policy(flags, overrides, ranks)

    return run_evaluation(make_actor, flags, console, argv=argv)


def _policy(flags: EvalFlags, overrides: Mapping[str, Any], ranks: Ranks) -> Actor:
    from vlakit.cli.evaluation_run import Actor
    from vlakit.evaluation.planner import check_fit, load_planner

    config = _on_own_device(flags.policy, ranks)
    notes = check_fit(config, flags.env, flags.rename_map)
    planner = load_planner(config, overrides, flags.rename_map)
    return Actor(
        planner=planner,
        env=flags.env,
        identity=_identity(flags, config, overrides) if ranks.is_first else {},
        settings={
            "policy": config.type,
            "checkpoint": config.pretrained_path,
            "device": planner.device,
        },
        notes=notes,
    )


def _identity(
    flags: EvalFlags, config: PolicyConfig, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what has to be equal, besides simulator and seed, for a run to go on."""
    from vlakit.evaluation.resume import folder_digest
    from vlakit.hub import resolve

    assert config.pretrained_path is not None
    folder = resolve(config.pretrained_path, revision=config.pretrained_revision)
    checkpoint = folder_digest(folder)
    return {"checkpoint": checkpoint, "overrides": overrides, "rename_map": flags.rename_map}


def _on_own_device(config: PolicyConfig | None, ranks: Ranks) -> PolicyConfig:
    """Return the settings of the policy, on this process's own GPU where there are several."""
    assert config is not None
    assert config.pretrained_path is not None
    if config.use_amp:
        raise ConfigError(
            "--policy.use_amp=true is not supported: rollouts compute in the checkpoint's own "
            "precision. Give --policy.use_amp=false, and --policy.dtype=bfloat16 for speed."
        )
    if ranks.world_size > 1 and config.device == "cuda":
        return config.override({"device": f"cuda:{ranks.local_rank}"})
    return config


def training_rollouts(
    flags: TrainFlags, output_dir: Path
) -> Callable[[Policy, Processor, Processor, int], dict[str, Any]]:
    """Return in-training evaluation: rolls out in `--env`, returns numbers to log."""
    env = flags.env
    assert env is not None
    env.task_list()
    env.check_machine()
    config = EvalConfig(
        n_episodes=flags.eval.n_episodes,
        batch_size=flags.eval.batch_size,
        use_async_envs=flags.eval.use_async_envs,
        max_videos=TRAINING_VIDEOS,
    )

    def roll_out(
        policy: Policy, preprocess: Processor, postprocess: Processor, step: int
    ) -> dict[str, Any]:
        from vlakit.evaluation.planner import evaluate_policy

        result = evaluate_policy(
            policy,
            preprocess,
            postprocess,
            env,
            config,
            seed=flags.seed or 0,
            output_dir=output_dir / "eval" / f"step_{step:06d}",
        )
        overall = result.to_json()["overall"]
        names = ("avg_sum_reward", "pc_success", "n_episodes", "eval_s")
        numbers = {name: overall[name] for name in names}
        low, high = overall["pc_success_interval_95"]
        numbers |= {"pc_success_low_95": low, "pc_success_high_95": high}
        rates = {f"pc_success/{t.entry.name}": 100 * t.success_rate for t in result.tasks}
        return numbers | {name: rate for name, rate in rates.items() if not math.isnan(rate)}

    return roll_out
