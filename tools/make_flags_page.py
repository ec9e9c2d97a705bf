# SPDX-License-Identifier: Apache-2.0
"""Writes `docs/flags.md` from the dataclasses, beside LeRobot's list in `lerobot_train_flags.json`.

    python tools/make_flags_page.py           # writes the page
    python tools/make_flags_page.py --check   # fails when the page is not up to date

Every difference in name or default needs a reason below; without one this script fails.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import Any

from vlakit.cli.compare import HELP as COMPARE_FLAG
from vlakit.cli.evaluate import EvalFlags
from vlakit.cli.policy_flags import PATH_FLAG
from vlakit.collection.config import CollectConfig
from vlakit.config import ACCEPTED_UNUSED_KEYS, RENAMED_KEYS
from vlakit.config.help import shown
from vlakit.config.schema import Flag, walk_flags
from vlakit.policies.config import PolicyConfig, register_configs
from vlakit.training.config import TrainFlags
from vlakit.training.lerobot_keys import NOT_BUILT
from vlakit.training.tokenizer_config import TokenizerFlags

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "flags.md"
LEROBOT = ROOT / "tools" / "lerobot_train_flags.json"
LEROBOT_PI0_FAST = ROOT / "tools" / "lerobot_pi0_fast_flags.json"

TYPES = {
    "policy": {"type": "eo1"},
    "env": {"type": "metaworld"},
    "optimizer": {"type": "adamw"},
    "scheduler": {"type": "cosine_decay_with_warmup"},
}

OTHER_DEFAULT = {
    "dataset.video_backend": "PyAV is always installed; torchcodec is taken when asked for",
    "env.episode_length": "LeRobot's 400 has no effect, its environment stops at 500",
    "env.task": "LeRobot's default is no task of Meta-World v3; here a task must be given",
}
"""Flags of both with another default -> why."""

OURS = {
    "dataset.cache_frames": "small datasets: decode once, keep the frames in memory",
    "accelerator.mixed_precision": "LeRobot 0.6.2's flag; null is what 0.6.1 does",
    "fused_optimizer": "LeRobot takes torch's default",
    "policy.activation_checkpointing": "LeRobot has one kind, gradient_checkpointing",
    "policy.compile_model": "LeRobot's EO-1 is not compiled",
    "policy.compile_mode": "LeRobot's EO-1 is not compiled",
    "profile": "where the time of a step goes",
    "profile_steps": "where the time of a step goes",
    "dataset.frame_cache": "decode once, on disk, for all runs",
    "dataset.frame_cache_dir": "where that disk is",
    "policy.engine": "LeRobot has one way",
    "policy.weight_quantization": "LeRobot has none",
    "policy.pack_sequences": "LeRobot pads",
    "ema.enable": "LeRobot 0.6.2's flag",
    "ema.decay": "LeRobot 0.6.2's flag",
    "env.camera_name": "which camera is rendered",
    "env.camera_position": "where it stands",
    "env.crop": "a small picture of what matters",
    "env.fast_render": "software rendering is slow",
    "env.observation_height": "size of the picture; LeRobot always takes 480",
    "env.observation_width": "size of the picture; LeRobot always takes 480",
    "env.python": "a simulator may need another Python environment than training",
    "env.render_size": "size of the videos",
}
"""Flags only vlakit has -> why."""

THEIRS = {
    "env.disable_env_checker": "there is no gymnasium environment to check",
    "env.features": "a simulator's file says what it gives",
    "env.features_map": "a simulator gives the dataset's names itself",
    "env.max_parallel_tasks": "rollouts of all tasks run side by side, see --eval.batch_size",
    "env.multitask_eval": "a comma list in --env.task runs several tasks",
    "env.obs_type": "pictures and state are always given",
    "env.render_mode": "pictures are always arrays",
}
"""Flags only LeRobot has (besides those not built yet) -> why."""


OURS_IN_PI0_FAST = {
    "policy.activation_checkpointing": "LeRobot has one kind, gradient_checkpointing",
    "policy.allow_missing_cameras": "LeRobot always does",
    "policy.allow_truncation": "LeRobot always does",
    "policy.decoding": "LeRobot's decoding can fail",
    "policy.paligemma_config": "LeRobot's sizes are fixed",
    "policy.speculative": "LeRobot decodes token by token",
    "policy.token_layout": "LeRobot has one layout",
    "policy.vlm_base": "LeRobot's new policies are random",
}
"""The same for the settings of pi0-FAST."""


def ours(cls: type, types: dict[str, Any]) -> dict[str, Flag]:
    """Return the flags of a command by name."""
    register_configs()
    return {flag.name: flag for flag in walk_flags(cls, types)}


def theirs(path: Path = LEROBOT) -> dict[str, Any]:
    """Return LeRobot's flags and defaults."""
    return json.loads(path.read_text(encoding="utf-8"))["flags"]


def pi0_fast() -> dict[str, Flag]:
    """Return the settings of pi0-FAST by name, without those that every policy has."""
    flags = ours(TrainFlags, TYPES | {"policy": {"type": "pi0_fast"}})
    common = {f"policy.{field.name}" for field in fields(PolicyConfig)} | {"policy.type"}
    return {n: f for n, f in flags.items() if n.startswith("policy.") and n not in common}


def not_built() -> dict[str, Any]:
    """Return flags accepted at one value only, dotted."""
    return dict(_flat(NOT_BUILT))


def _flat(values: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def differences() -> list[str]:
    """Return every difference to LeRobot that has no reason above, and every reason without one."""
    mine, lerobot = ours(TrainFlags, TYPES), theirs()
    built_later = set(not_built()) | {name for name in lerobot if name.startswith("peft.")}
    problems = []
    for name, flag in mine.items():
        default = "required" if flag.is_required else flag.default
        if name not in lerobot and name not in OURS:
            problems.append(f"--{name} is not LeRobot's: say why in OURS")
        elif name in lerobot and default != lerobot[name] and name not in OTHER_DEFAULT:
            problems.append(f"--{name} is {default!r}, LeRobot has {lerobot[name]!r}")
    problems += [
        f"--{name} of LeRobot is missing: build it or say why in THEIRS"
        for name in lerobot
        if name not in mine and name not in built_later and name not in THEIRS
    ]
    stale = [n for n in OTHER_DEFAULT if mine[n].default == lerobot[n]]
    stale += [n for n in OURS if n not in mine or n in lerobot]
    stale += [n for n in THEIRS if n in mine or n not in lerobot]
    problems += [f"the reason for --{name} is out of date" for name in stale]
    return problems + _differences_in_pi0_fast()


def _differences_in_pi0_fast() -> list[str]:
    mine, lerobot = pi0_fast(), theirs(LEROBOT_PI0_FAST)
    problems = [
        f"--{name} of pi0_fast is {flag.default!r}, LeRobot has {lerobot[name]!r}"
        for name, flag in mine.items()
        if name in lerobot and flag.default != lerobot[name]
    ]
    if mine.keys() - lerobot.keys() != OURS_IN_PI0_FAST.keys():
        problems.append("OURS_IN_PI0_FAST names other settings than those that only we have")
    common = {f"policy.{field.name}" for field in fields(PolicyConfig)}
    missing = sorted(lerobot.keys() - mine.keys() - common)
    return problems + [f"--{name} of pi0_fast is missing" for name in missing]


def page() -> str:
    """Return the content of `docs/flags.md`."""
    parts = [
        "<!-- Written by tools/make_flags_page.py: change the dataclasses, then run it again. -->",
        "# Flags",
        "",
        "Flags are `--name=value` or `--name value`. A boolean that stands alone is true, lists "
        "and dictionaries are JSON, `null` means none. `--config_path=FILE` reads the same names "
        "from a YAML or JSON file; flags win over it. `--help` shows the flags of a command, with "
        "those of the types given (`--policy.type=eo1 --env.type=metaworld`); `--debug` shows the "
        "traceback of an error.",
        "",
        "Names and defaults are those of LeRobot 0.6.1; the column *LeRobot* names what differs.",
        "",
        *_command("vlakit train", ours(TrainFlags, TYPES), compare=True),
        *_pi0_fast(),
        *_lists(),
        *_command("vlakit eval", ours(EvalFlags, TYPES)),
        *_command("vlakit collect", ours(CollectConfig, TYPES)),
        *_command("vlakit train-tokenizer", ours(TokenizerFlags, {})),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _command(title: str, flags: dict[str, Flag], *, compare: bool = False) -> list[str]:
    lines = [f"## {title}", ""]
    extra = [Flag(name, "str", None, text) for name, text in PATH_FLAG.items()]
    known = [*flags.values(), *(extra if any(n.startswith("policy.") for n in flags) else [])]
    if title != "vlakit train":  # the policy's settings stand once, under train
        shown_here = ("policy.path", "policy.type")
        known = [f for f in known if not f.name.startswith("policy.") or f.name in shown_here]
    if title == "vlakit eval":
        known += [Flag(name, "two names", None, text) for name, text in COMPARE_FLAG.items()]
    for group, members in groupby(sorted(known, key=_group), key=_group):
        lines += [f"### {group or 'general'}", ""]
        lines += ["| flag | type | default | |" + (" LeRobot |" if compare else "")]
        lines += ["| --- | --- | --- | --- |" + (" --- |" if compare else "")]
        lines += [_row(flag, compare=compare) for flag in members]
        lines.append("")
    return lines


def _pi0_fast() -> list[str]:
    lines = ["### policy, with `--policy.type=pi0_fast`", ""]
    lines += ["In the place of EO-1's; see [its page](policies/pi0_fast.md).", ""]
    lines += ["| flag | type | default | | LeRobot |", "| --- | --- | --- | --- | --- |"]
    for flag in sorted(pi0_fast().values(), key=lambda flag: flag.name):
        why = OURS_IN_PI0_FAST.get(flag.name)
        lines.append(f"{_row(flag, compare=False)} {f'not there: {why}' if why else ''} |")
    return [*lines, ""]


def _group(flag: Flag) -> str:
    return flag.name.rpartition(".")[0].split(".")[0]


def _row(flag: Flag, *, compare: bool) -> str:
    kind = ", ".join(flag.choices) if flag.choices else flag.type_name
    default = (
        "required" if flag.is_required else "" if flag.default is None else shown(flag.default)
    )
    cells = [f"`--{flag.name}`", kind, f"`{default}`" if default else "", flag.help]
    if compare:
        cells.append(_note(flag.name))
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


def _note(name: str) -> str:
    if name in OTHER_DEFAULT:
        return f"default `{shown(theirs()[name])}`: {OTHER_DEFAULT[name]}"
    return f"not there: {OURS[name]}" if name in OURS else ""


def _lists() -> list[str]:
    lines = ["### LeRobot's flags that are not built yet", ""]
    lines += ["Accepted at this value only; any other is an error, never ignored.", ""]
    lines += ["| flag | value |", "| --- | --- |"]
    lines += [f"| `--{name}` | `{json.dumps(value)}` |" for name, value in not_built().items()]
    lines += [
        "",
        "### LeRobot's flags that have no place here",
        "",
        "| flag | why |",
        "| --- | --- |",
    ]
    lines += [f"| `--{name}` | {why} |" for name, why in THEIRS.items()]
    lines += ["", "### Keys accepted in files and not used", ""]
    lines += ["LeRobot 0.4 to 0.6.2 writes them; as flags they are unknown.", ""]
    lines += ["| where | key | written by |", "| --- | --- | --- |"]
    for owner, keys in ACCEPTED_UNUSED_KEYS.items():
        lines += [f"| {owner} | `{key}` | {why} |" for key, why in keys.items()]
    for owner, keys in RENAMED_KEYS.items():
        lines += [f"| {owner} | `{old}` | read as `{new}` |" for old, new in keys.items()]
    return [*lines, ""]


def main() -> int:
    """Write the page, or check it."""
    problems = differences()
    if "--check" in sys.argv:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page():
            problems.append(f"{PAGE.name} is not up to date: run tools/make_flags_page.py")
    elif not problems:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(), encoding="utf-8")
    print("\n".join(problems) or f"{PAGE.name}: good")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
