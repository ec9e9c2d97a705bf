# SPDX-License-Identifier: Apache-2.0
"""One recording for the tests of this folder, and flags that read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.arm_recording import record_arm
from vlakit.training.fast_tokenizer.data import TrainingData, read_training_data
from vlakit.training.tokenizer_config import TokenizerFlags

Reader = Callable[..., TrainingData]


@pytest.fixture(scope="session")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four episodes of 30, 24, 7 and 40 frames, seven joints."""
    return record_arm(tmp_path_factory.mktemp("arm") / "arm")


@pytest.fixture
def read(arm: Path) -> Reader:
    """Read the training data of the recording, with these flags."""

    def reader(**flags: Any) -> TrainingData:
        given = {"repo_id": "me/arm", "root": str(arm), "sample_fraction": 1.0} | flags
        return read_training_data(TokenizerFlags(**given))

    return reader
