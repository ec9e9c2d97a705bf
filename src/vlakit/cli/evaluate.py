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
from vlakit.cli.evaluation_folder import check_folder, kept_on_failure
from vlakit.cli.policy_flags import PATH_FLAG, with_policy_path
from vlakit.config import encode, parse_flags
from vlakit.environments.config import EnvConfig
from vlakit.errors import ConfigError
from vlakit.evaluation.config import EvalConfig
from vlakit.policies.config import PolicyConfig, register_configs

if TYPE_CHECKING:
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
    """The policy: --policy.path=<checkpoint>."""
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

    def output_path(self, now: datetime) -> Path:
        """Return the output folder: given, or named after the time and the job."""
        assert self.policy is not None
        if self.output_dir is not None:
            return self.output_dir
        name = self.job_name or f"{self.env.type}_{self.policy.type}"
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
        given.update(raw.get("policy") or {})
        if given.get("path") is None:
            raise ConfigError(
                "--policy.path is missing: give the checkpoint to evaluate, such as "
                "outputs/train/.../checkpoints/last/pretrained_model."
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
    from vlakit.cli.evaluation_output import finish
    from vlakit.evaluation.distributed import Ranks
    from vlakit.evaluation.planner import check_fit, load_planner
    from vlakit.evaluation.resume import folder_digest
    from vlakit.evaluation.rollout import evaluate
    from vlakit.hub import resolve

    with Ranks.of_this_process() as ranks:
        config = _on_own_device(flags.policy, ranks)
        flags.env.task_list()
        output_dir = Path(ranks.gather(str(flags.output_path(datetime.now())))[0])
        check_folder(output_dir, ranks, resume=flags.resume)
        notes = check_fit(config, flags.env, flags.rename_map)
        machine = flags.env.check_machine()
        planner = load_planner(config, overrides, flags.rename_map)
        folder = resolve(config.pretrained_path or "", revision=config.pretrained_revision)
        identity = {
            "checkpoint": folder_digest(folder),
            "overrides": dict(overrides),
            "rename_map": flags.rename_map,
        }
        if ranks.is_first:  # once nothing can be wrong any more: an error is one line
            for line in [*(f"note: {note}" for note in notes), *machine]:
                console.print(line, highlight=False, soft_wrap=True)
        with kept_on_failure(output_dir):
            result = evaluate(
                planner,
                flags.env,
                flags.eval,
                seed=flags.seed,
                output_dir=output_dir,
                resume=flags.resume,
                identity=identity,
                ranks=ranks,
                console=console,
            )
        if not ranks.is_first:
            return result
        return finish(
            result,
            output_dir,
            argv=argv,
            config=encode(flags),
            console=console,
            policy=config.type,
            checkpoint=config.pretrained_path,
            device=planner.device,
        )


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
