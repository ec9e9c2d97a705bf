# SPDX-License-Identifier: Apache-2.0
"""What an evaluation was started with, and whether another start may go on with it.

Rollouts of one folder must be comparable, so everything that changes an outcome has to be equal:
policy, environment, seed, controls. What does not change an outcome may differ, such as how many
environments run at once; more episodes may be asked for as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlakit.config.schema import encode
from vlakit.environments.base import EnvConfig
from vlakit.errors import ConfigError
from vlakit.evaluation.config import EvalConfig
from vlakit.evaluation.output_files import OutputFiles
from vlakit.files import read_json, write_json

FREE = frozenset(
    f"eval.{name}"
    for name in (
        "n_episodes",
        "batch_size",
        "use_async_envs",
        "max_videos",
        "policy_batch_size",
        "stop_when_decided",
        "worker_timeout",
        "max_retries",
    )
)
"""Settings that may differ when an evaluation goes on."""


def run_settings(
    env_config: EnvConfig, eval_config: EvalConfig, *, seed: int, identity: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what an evaluation was run with, as `eval_config.json` and `eval_info.json` have it.

    Args:
        env_config: The simulator.
        eval_config: Number of rollouts, and controls.
        seed: The first one.
        identity: What tells one policy from another; empty where nobody goes on.
    """
    env = {"type": env_config.type} | encode(env_config)
    blank = eval_config.blank_images
    settings = {"seed": seed, "blank_images": blank, "env": env, "eval": encode(eval_config)}
    return settings | ({"identity": dict(identity)} if identity else {})


def folder_digest(folder: Path) -> str:
    """Return what tells a checkpoint from any other: a hash of settings, processors and weights."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted((*folder.glob("*.json"), *folder.glob("*.safetensors"))):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "blake2b").hexdigest()
        digest.update(f"{path.name} {content}\n".encode())
    return digest.hexdigest()


def start_folder(files: OutputFiles, settings: Mapping[str, Any], *, resume: bool) -> None:
    """Write what an evaluation is started with, or check that it goes on with the same.

    Args:
        files: Its output folder.
        settings: Of `run_settings`.
        resume: Go on; otherwise logs of an earlier evaluation in the folder are removed.

    Raises:
        ConfigError: There is nothing to go on with, or settings differ.
    """
    if resume:
        check_settings(files, settings)
    else:
        for log in files.logs():
            log.unlink()
    files.folder.mkdir(parents=True, exist_ok=True)
    write_json(files.config, settings)


def check_settings(files: OutputFiles, settings: Mapping[str, Any]) -> None:
    """Make sure that an evaluation may go on with these settings.

    Raises:
        ConfigError: There is nothing to go on with, or something differs that may not.
    """
    stored = read_json(
        files.config,
        ConfigError,
        missing=": --resume=true goes on with an evaluation in --output_dir. Leave it out to "
        "start one.",
        damaged="Give another --output_dir.",
    )
    # As JSON: what was stored went that way, too.
    before, now = _flat(stored), _flat(json.loads(json.dumps(settings)))
    for name in [*before, *(name for name in now if name not in before)]:
        if name in FREE or name == "blank_images":  # the latter is `eval.blank_images`
            continue
        if before.get(name) != now.get(name):
            raise ConfigError(
                f"--resume=true: {name} was {json.dumps(before.get(name))} when the evaluation in "
                f"--output_dir={files.folder} was started, and is {json.dumps(now.get(name))} now: "
                "give the same value, or another --output_dir."
            )


def _flat(entry: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in entry.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
