# SPDX-License-Identifier: Apache-2.0
"""`vlakit eval --policy.type=expert` and `--replay=DATASET`: is the simulator wired right?

Both need no checkpoint. An expert that fails, or recorded actions that lead elsewhere, say that a
success rate of 0 % is not the policy's fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from vlakit.config import encode, merged
from vlakit.errors import ConfigError

if TYPE_CHECKING:
    from vlakit.cli.evaluate import EvalFlags
    from vlakit.cli.evaluation_run import Actor
    from vlakit.evaluation.distributed import Ranks
    from vlakit.evaluation.recording import Recording
    from vlakit.evaluation.replay import ReplayPlanner
    from vlakit.evaluation.replay_findings import ReplayReport

EXPERT = "expert"
REPLAY = "replay"


def is_check(raw: Mapping[str, Any]) -> bool:
    """Return whether raw flags ask for the expert or for a replay, rather than for a policy."""
    return raw.get(REPLAY) is not None or (raw.get("policy") or {}).get("type") == EXPERT


def prepare(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the raw flags without the policy; a replay's simulator is the recording's.

    Raises:
        ConfigError: Flags of a policy are given, or nothing says which simulator.
    """
    policy = dict(raw.get("policy") or {})
    kind = policy.pop("type", None)
    if policy or (kind is not None and (raw.get(REPLAY) is not None or kind != EXPERT)):
        given = [*([f"--policy.type={kind}"] if kind else []), *(f"--policy.{n}" for n in policy)]
        check = "--replay" if raw.get(REPLAY) is not None else f"--policy.type={EXPERT}"
        others = [flag for flag in given if flag != check]
        raise ConfigError(f"{check} runs without a policy, but {others[0]} is given: leave it out.")
    result = {name: value for name, value in raw.items() if name != "policy"}
    if raw.get(REPLAY) is not None:
        result["env"] = _recorded_env(str(raw[REPLAY]), raw.get("env") or {})
    return result


def _recorded_env(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the simulator's settings of a recording, with flags over them."""
    from vlakit.datasets.location import locate
    from vlakit.environments.collection_record import read_record

    folder = Path(name).expanduser()
    if not folder.is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise ConfigError(f"--replay={name} is no folder: give a dataset's, or its repository id.")
    root = folder if folder.is_dir() else locate(name, None, None, None).root
    recorded = read_record(root).env
    if not recorded and "type" not in given:
        raise ConfigError(
            f"--replay={name}: the dataset does not say which simulator it comes from (`vlakit "
            "collect` would have noted it). Give --env.type and the flags of its cameras."
        )
    is_same = given.get("type", recorded.get("type")) == recorded.get("type")
    return merged(recorded, given) if is_same else dict(given)


def check_flags(flags: EvalFlags) -> None:
    """Make sure that nothing was asked for that only a policy could do.

    Raises:
        ConfigError: A control of a policy is given, or a replay is to be resumed.
    """
    name = f"--policy.type={EXPERT}" if flags.replay is None else "--replay"
    controls = {
        "--eval.blank_images=true": flags.eval.blank_images,
        "--eval.instruction": flags.eval.instruction is not None,
        "--eval.instructions": bool(flags.eval.instructions),
        "--rename_map": bool(flags.rename_map),
        "--resume=true": flags.resume and flags.replay is not None,
    }
    for flag, is_given in controls.items():
        if is_given:
            raise ConfigError(f"{flag} has no effect with {name}: leave it out.")


def run_check(flags: EvalFlags, console: Console, *, argv: Sequence[str]) -> None:
    """Let the expert act, or the recording; print what a replay found."""
    from vlakit.cli.evaluation_run import run_evaluation

    check_flags(flags)
    if flags.replay is None:
        run_evaluation(lambda ranks: _expert(flags), flags, console, argv=argv)
        return
    replay = _Replay(flags)
    run_evaluation(replay.actor, flags, console, argv=argv)
    for line in replay.words():
        console.print(line, highlight=False, soft_wrap=True)


def _expert(flags: EvalFlags) -> Actor:
    from vlakit.cli.evaluation_run import Actor
    from vlakit.environments.expert_env import ExpertEnvConfig
    from vlakit.evaluation.expert_planner import ExpertPlanner

    return Actor(
        planner=ExpertPlanner(),
        env=ExpertEnvConfig.of(flags.env),
        identity={"policy": EXPERT},
        settings={"policy": EXPERT, "env": {"type": flags.env.type} | encode(flags.env)},
    )


class _Replay:
    """A replay from its flags to its findings."""

    def __init__(self, flags: EvalFlags) -> None:
        self._flags = flags
        self._recording: Recording | None = None
        self._planner: ReplayPlanner | None = None

    def actor(self, ranks: Ranks) -> Actor:
        """Read the recording; returns what acts."""
        from vlakit.cli.evaluation_run import Actor
        from vlakit.evaluation.recording import Recording
        from vlakit.evaluation.replay import STRIDE, ReplayPlanner

        flags = self._flags
        assert flags.replay is not None
        if ranks.world_size > 1:
            raise ConfigError("--replay runs in one process: start it without torchrun.")
        recording = Recording(
            flags.replay, flags.env, max_episodes=flags.eval.n_episodes, first_seed=flags.seed
        )
        self._recording, self._planner = recording, ReplayPlanner(recording)
        # Where the recording is over without success, a little patience, not the whole limit.
        steps = min(flags.env.episode_length or 10**6, recording.longest + 2 * STRIDE)
        notes = []
        if not recording.knows_starts:
            notes.append(
                f"{flags.replay} does not say where its episodes began: they are played from "
                "other starts, so failures and differences are to be expected."
            )
        return Actor(
            planner=self._planner,
            env=replace(flags.env, episode_length=steps),
            identity={"replay": flags.replay},
            settings={
                "policy": f"replay of {flags.replay}",
                "env": {"type": flags.env.type} | encode(flags.env),
            },
            notes=notes,
            seeds=recording.seeds,
            before_report=self._write,
        )

    def _report(self) -> ReplayReport:
        from vlakit.evaluation.replay_findings import replay_report
        from vlakit.features import OBS_STATE

        assert self._recording is not None
        assert self._planner is not None
        return replay_report(
            self._planner.frames,
            dataset=self._recording.name,
            knows_starts=self._recording.knows_starts,
            state_names=_names(self._recording.feature_names.get(OBS_STATE, {})),
        )

    def _write(self, output_dir: Path) -> None:
        from vlakit.evaluation.replay_findings import REPLAY_FILE
        from vlakit.files import write_json

        write_json(output_dir / REPLAY_FILE, self._report().to_json(), indent=2)

    def words(self) -> list[str]:
        """Return what to print: how near the replay came, and what looks wrong."""
        report = self._report()
        return [report.summary, *(f"look at this: {finding}" for finding in report.findings)]


def _names(feature: Mapping[str, Any]) -> list[str]:
    shape = feature.get("shape") or (0,)
    names = feature.get("names")
    if isinstance(names, Mapping):  # some datasets have {"motors": [...]}
        names = next(iter(names.values()))
    return list(names) if names and len(names) == shape[0] else [f"s{i}" for i in range(shape[0])]
