# SPDX-License-Identifier: Apache-2.0
"""`vlakit train-tokenizer`: fit a FAST action tokenizer to a dataset, and say what it is worth."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from vlakit.cli.output_folder import check_can_be_made
from vlakit.config import parse_flags
from vlakit.errors import CheckpointError, ConfigError, DatasetError
from vlakit.training.tokenizer_config import TokenizerFlags

if TYPE_CHECKING:
    from vlakit.training.fast_tokenizer.data import TrainingData
    from vlakit.training.fast_tokenizer.fit import Fitted
    from vlakit.training.fast_tokenizer.report import Spread
    from vlakit.training.fast_tokenizer.sweep import Candidate

SUMMARY = (
    "Fit a FAST action tokenizer for pi0-FAST to the actions of a dataset. Only tables are read, "
    "never a video. Writes the tokenizer, its normalisation, metadata.json and report.json."
)
PI0_FAST_TOKENS = 256
"""Default of `--policy.max_action_tokens` and `--policy.max_decoding_steps`."""
OTHERS_FLAG = re.compile(r"--dataset\.(repo_id|root|revision)")
OWN_FILES = ("processor_config.json", "sweep.json")
"""What a folder holds that an earlier run of this command has written."""


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    flags = parse_flags(TokenizerFlags, argv, prog="vlakit train-tokenizer", summary=SUMMARY)
    console = Console(stderr=True)
    folder = flags.output_path()
    _check_folder(folder)
    if flags.push_to_hub:
        _check_hub_name(flags, folder)
    from vlakit.training.fast_tokenizer.data import read_training_data
    from vlakit.training.fast_tokenizer.fit import fit
    from vlakit.training.fast_tokenizer.notices import data_notices

    try:
        data = read_training_data(flags)
    except DatasetError as error:
        # Those who read datasets name the flags of `vlakit train`.
        raise DatasetError(OTHERS_FLAG.sub(r"--\1", str(error))) from error
    _say(console, _describe(data))
    if flags.sweep:
        for notice in data_notices(data):
            _note(console, notice)
        _run_sweep(data, folder, console)
        return 0
    fitted = fit(data, console)
    for notice in fitted.notices():
        _note(console, notice)
    _show(fitted, console)
    fitted.save(folder)
    _say(console, f"tokenizer: {folder}")
    if fitted.data.dimensions.is_whole(fitted.data.actions.dim):
        _say(console, f"vlakit train takes it with {_train_flags(fitted, folder)}")
    if flags.push_to_hub:
        _push(flags, folder, console)
    elif flags.hub_repo_id:
        _note(console, f"not pushed to {flags.hub_repo_id}: --push_to_hub is not given.")
    return 0


def _check_folder(folder: Path) -> None:
    """Make sure that the folder can be written and holds nothing of others.

    Raises:
        ConfigError: it cannot, or does.
    """
    if folder.is_dir():
        holds = sorted(path.name for path in folder.iterdir())
        if holds and not any(name in OWN_FILES for name in holds):
            raise ConfigError(
                f"--output_dir={folder} holds {holds[0]} and is no folder of a tokenizer: give "
                "another one, new or empty."
            )
    check_can_be_made(folder, "--output_dir")


def _hub_name(flags: TokenizerFlags, folder: Path) -> str:
    return flags.hub_repo_id or folder.resolve().name


def _check_hub_name(flags: TokenizerFlags, folder: Path) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    name = _hub_name(flags, folder)
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(
            f"{name!r} is no name of a hub repository: give --hub_repo_id=owner/name."
        ) from error


def _push(flags: TokenizerFlags, folder: Path, console: Console) -> None:
    from vlakit.hub import push_folder

    message = f"Upload FAST tokenizer trained on {flags.repo_id}"
    try:
        address = push_folder(
            folder, _hub_name(flags, folder), private=flags.hub_private, message=message
        )
    except CheckpointError as error:
        raise CheckpointError(f"the tokenizer is saved, but not pushed: {error}") from error
    _say(console, f"pushed: {address}")


def _describe(data: TrainingData) -> str:
    """Return in one line what is encoded."""
    flags, actions = data.flags, data.actions
    labels = ", ".join(map(actions.label, data.dimensions.encoded))
    seconds = flags.action_horizon / actions.fps
    share = "" if flags.sample_fraction == 1 else f" ({flags.sample_fraction:g} of each episode)"
    return (
        f"{flags.repo_id}: {len(actions.episodes)} episodes, {len(data.sampled):,} chunks{share} "
        f"of {flags.action_horizon} steps ({seconds:.2g} s at {actions.fps:g} fps) x "
        f"{len(data.dimensions.encoded)} dimensions ({labels}), {flags.normalization_mode}"
    )


def _show(fitted: Fitted, console: Console) -> None:
    measured, need = fitted.measured, fitted.measured.max_action_tokens()
    clipped = float(fitted.data.clipped_share.mean())
    facts = {
        "chunks measured": f"{measured.num_chunks:,} of {len(fitted.data.chunks.all_rows):,}",
        "tokens per chunk": f"{_three(measured.tokens, '.1f')} (mean, p99, max)",
        "numbers per token": f"{measured.compression_ratio:.2f}",
        "--policy.max_action_tokens": f"{need['max']} for all chunks, {need['p99']} for 99 % "
        f"({need['fixed_tokens']} stand around the codes)",
        "vocabulary": f"{measured.vocabulary_used} of {fitted.tokenizer.vocab_size} ids occur, "
        f"{fitted.data.flags.vocab_size} asked for",
        "lowest coefficient": f"{measured.lowest_coefficient}, the tokenizer has "
        f"{fitted.tokenizer.min_token} and above",
        "saturated coefficients": f"{measured.saturated_coefficients:.3%}, in "
        f"{measured.saturated_chunks:.2%} of the chunks",
        "clipped for fitting": f"{clipped:.2%} of the numbers",
    }
    table = Table(title="What the tokenizer makes of the dataset", show_header=False)
    for name, value in facts.items():
        table.add_row(name, value)
    console.print(table)
    errors = Table(title="Reconstruction error (absolute: mean, p99, max)")
    for column in ("dimension", "normalised", "in the robot's units"):
        errors.add_column(column)
    for entry in measured.error_by_dimension:
        units = _three(entry.normalized, ".4f"), _three(entry.physical, ".3g")
        errors.add_row(f"{entry.dim} {entry.name}", *units)
    console.print(errors)


def _train_flags(fitted: Fitted, folder: Path) -> str:
    """Return the flags of a policy that encodes what the tokenizer was fitted on."""
    flags, need = fitted.data.flags, fitted.measured.max_action_tokens()["max"]
    scaling = {"ACTION": flags.normalization_mode, "STATE": "QUANTILES", "VISUAL": "IDENTITY"}
    given = [
        "--policy.type=pi0_fast",
        f"--policy.action_tokenizer_name={folder}",
        f"--policy.chunk_size={flags.action_horizon}",
        f"--policy.n_action_steps={flags.action_horizon}",
        f"--policy.normalization_mapping='{json.dumps(scaling)}'",
    ]
    if need > PI0_FAST_TOKENS:
        given.append(f"--policy.max_action_tokens={need} --policy.max_decoding_steps={need}")
    if flags.use_relative_transform:
        given.append("--policy.use_relative_actions=true")
    return " ".join(given)


def _three(spread: Spread, form: str) -> str:
    return ", ".join(format(value, form) for value in (spread.mean, spread.p99, spread.max))


def _run_sweep(data: TrainingData, folder: Path, console: Console) -> None:
    from vlakit.training.fast_tokenizer import sweep

    candidates = sweep.sweep(data, console)
    _show_sweep(candidates, console)
    for line in sweep.impossible_lines(candidates):
        _note(console, line)
    sweep.save_sweep(candidates, data, folder)
    _say(console, f"table: {folder / sweep.SWEEP_MARKDOWN}; no tokenizer was written")


def _show_sweep(candidates: list[Candidate], console: Console) -> None:
    from vlakit.training.fast_tokenizer.sweep import COLUMNS, LEGEND

    table = Table(box=SIMPLE, collapse_padding=True)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    before = None
    for candidate in candidates:
        if before not in (None, candidate.scale):
            table.add_section()
        table.add_row(*candidate.cells())
        before = candidate.scale
    console.print(table)
    _say(console, f"{LEGEND}; *: --vocab_size and --scale of this command")


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def _note(console: Console, text: str) -> None:
    console.print(f"note: {text}", highlight=False, soft_wrap=True, markup=False)
