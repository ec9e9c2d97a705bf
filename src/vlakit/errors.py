# SPDX-License-Identifier: Apache-2.0
"""The error tree: everything a user can cause is a `VlakitError`.

    VlakitError
    ├── ConfigError          a flag, a configuration file or a combination of settings
    │   └── DeviceError      a device that this machine does not have
    ├── DatasetError         files of a dataset: missing, damaged, inconsistent
    ├── CheckpointError      files of a checkpoint or tensors that do not fit
    ├── ProcessingError      a batch that a processing step cannot take
    ├── ActionDecodeError    generated tokens that do not spell an action chunk
    ├── TrainingError        a run that cannot go on, such as a loss that is not finite
    ├── SimulatorError       a simulator that cannot start, render or go on
    └── ServingError         a policy server or its client

A message has three parts: what was given, what was expected, what to do next. The command line
prints it as one line with exit code 2; `--debug` shows the traceback. `assert` is for our own bugs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


class VlakitError(Exception):
    """Base of every error a user can cause."""


class ConfigError(VlakitError, ValueError):
    """A flag, a configuration file or a combination of settings is wrong."""


class DeviceError(ConfigError):
    """A device was asked for that this machine does not have."""


class DatasetError(VlakitError):
    """A file of a dataset is missing, damaged or disagrees with another."""


class CheckpointError(VlakitError):
    """A file of a checkpoint is missing or damaged, or its tensors do not fit."""


class ProcessingError(VlakitError, ValueError):
    """A processing step got a batch that it cannot take."""


class ActionDecodeError(VlakitError, ValueError):
    """Generated tokens do not spell an action chunk."""

    def __init__(self, message: str, failures: Mapping[int, str] | None = None) -> None:
        """Take the message, and why each row of the batch that failed did so."""
        super().__init__(message)
        self.failures: dict[int, str] = dict(failures or {})


class TrainingError(VlakitError):
    """A training run cannot go on."""


class SimulatorError(VlakitError):
    """A simulator cannot start, render or go on."""


class ServingError(VlakitError):
    """A policy server or its client failed."""


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return ' Did you mean ...?' with the nearest candidate, or an empty string."""
    nearest = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""
