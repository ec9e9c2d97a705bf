# SPDX-License-Identifier: Apache-2.0
"""The way of every evaluation, whatever acts: folder, rollouts, files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from vlakit.cli.evaluation_folder import check_folder, kept_on_failure
from vlakit.cli.evaluation_output import finish
from vlakit.config import encode
from vlakit.environments.base import EnvConfig
from vlakit.evaluation.distributed import Ranks
from vlakit.evaluation.output_files import OutputFiles
from vlakit.evaluation.planning import Planner
from vlakit.evaluation.results import EvaluationResult
from vlakit.evaluation.resume import check_settings, run_settings
from vlakit.evaluation.rollout import evaluate

if TYPE_CHECKING:
    from vlakit.cli.evaluate import EvalFlags


@dataclass(frozen=True, kw_only=True)
class Actor:
    """What acts in an evaluation, and what is recorded of it."""

    planner: Planner
    env: EnvConfig
    """The simulator as this actor needs it."""
    identity: Mapping[str, Any]
    """What tells it from another, for `--resume`."""
    settings: Mapping[str, Any]
    """What `eval_info.json` says of it: `policy`, its name, and more."""
    notes: Sequence[str] = ()
    """What to say before the first rollout."""
    seeds: Mapping[str, Sequence[int]] | None = None
    """Task -> its seeds; None counts on from `--seed`."""
    before_report: Callable[[Path], None] | None = field(default=None)
    """Writes what else the report shows into the output folder."""


def run_evaluation(
    make_actor: Callable[[Ranks], Actor],
    flags: EvalFlags,
    console: Console,
    *,
    argv: Sequence[str],
) -> EvaluationResult:
    """Let an actor act; write the log, `eval_info.json` and the report; print the table.

    Args:
        make_actor: Loads what acts; called once nothing else can be wrong.
        flags: The command's flags.
        console: Where progress and results are shown.
        argv: The flags as typed.
    """
    with Ranks.of_this_process() as ranks:
        flags.env.task_list()
        output_dir = Path(ranks.gather(str(flags.output_path(datetime.now())))[0])
        check_folder(output_dir, ranks, resume=flags.resume)
        machine = flags.env.check_machine()
        actor = make_actor(ranks)
        if flags.resume and ranks.is_first:
            settings = run_settings(actor.env, flags.eval, seed=flags.seed, identity=actor.identity)
            check_settings(OutputFiles(output_dir), settings)
        if ranks.is_first:  # once nothing can be wrong any more: an error is one line
            for line in [*(f"note: {note}" for note in actor.notes), *machine]:
                console.print(line, highlight=False, soft_wrap=True)
        with kept_on_failure(output_dir):
            result = evaluate(
                actor.planner,
                actor.env,
                flags.eval,
                seed=flags.seed,
                seeds=actor.seeds,
                output_dir=output_dir,
                resume=flags.resume,
                identity=actor.identity,
                ranks=ranks,
                console=console,
            )
        if not ranks.is_first:
            return result
        if actor.before_report is not None:
            actor.before_report(output_dir)
        return finish(
            result, output_dir, argv=argv, config=encode(flags), console=console, **actor.settings
        )
