# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vlakit.errors import CheckpointError, ConfigError
from vlakit.processing.batch import ToDevice
from vlakit.processing.normalize import Unnormalizer
from vlakit.processing.pipeline import POSTPROCESSOR, Pipeline

FEATURES = {"action": {"type": "ACTION", "shape": [2]}}
STATS = {"action": {"mean": [1.0, 2.0], "std": [2.0, 4.0]}}
FILE = "policy_postprocessor.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    steps = [Unnormalizer(FEATURES, {"ACTION": "MEAN_STD"}, STATS), ToDevice("cpu")]
    Pipeline(steps, POSTPROCESSOR).save(tmp_path)
    return tmp_path


def edit(folder: Path, **changes: object) -> None:
    content = json.loads((folder / FILE).read_text())
    content["steps"][0].update(changes)
    (folder / FILE).write_text(json.dumps(content))


def test_a_bare_tensor_is_the_action(folder: Path) -> None:
    real = Pipeline.load(folder, FILE)(torch.ones(1, 2))
    assert real.tolist() == [[3.0, 6.0]]


def test_files_carry_lerobots_names(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        FILE,
        "policy_postprocessor_step_0_unnormalizer_processor.safetensors",
    ]


def test_given_statistics_win_over_stored_ones(folder: Path) -> None:
    other = {"action": {"mean": [0.0, 0.0], "std": [1.0, 1.0]}}
    pipeline = Pipeline.load(folder, FILE, {"unnormalizer_processor": {"stats": other}})
    assert pipeline(torch.ones(1, 2)).tolist() == [[1.0, 1.0]]


def test_an_override_without_its_step_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'unnormalizer_processor'"):
        Pipeline.load(folder, FILE, {"unnormaliser_processor": {}})


def test_an_unknown_step_is_refused(folder: Path) -> None:
    edit(folder, registry_name="smolvla_new_line_processor")
    with pytest.raises(CheckpointError, match="asks for step 'smolvla_new_line_processor'"):
        Pipeline.load(folder, FILE)


def test_a_class_named_in_a_file_is_never_imported(folder: Path) -> None:
    edit(folder, registry_name=None, **{"class": "os.system"})
    with pytest.raises(CheckpointError, match=r"Python class 'os\.system'.*never imported"):
        Pipeline.load(folder, FILE)


def test_an_unknown_setting_of_a_step_is_named(folder: Path) -> None:
    edit(folder, config={"features": FEATURES, "norm_map": {}, "epsilon": 1})
    with pytest.raises(CheckpointError, match=r"unknown key 'epsilon' .*Did you mean 'eps'"):
        Pipeline.load(folder, FILE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ("[]", "holds a list; expected a JSON object"),
        ('{"name": "x"}', "is not a processor file: expected 'steps'"),
        ('{"steps": 3}', "is not a processor file: expected 'steps'"),
        ('{"steps": [7]}', "is not a processor file: expected 'steps'"),
    ],
)
def test_a_damaged_file_is_named(folder: Path, text: str, message: str) -> None:
    (folder / FILE).write_text(text)
    with pytest.raises(CheckpointError, match=rf"policy_postprocessor\.json {message}"):
        Pipeline.load(folder, FILE)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"policy_postprocessor\.json is missing"):
        Pipeline.load(tmp_path, FILE)


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_state_file_is_named(folder: Path, damage: str) -> None:
    state = next(folder.glob("*.safetensors"))
    if damage == "missing":
        state.unlink()
    else:
        state.write_bytes(state.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=r"unnormalizer_processor\.safetensors, which policy"):
        Pipeline.load(folder, FILE)
