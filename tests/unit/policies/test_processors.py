# SPDX-License-Identifier: Apache-2.0
"""Loading the processors of a checkpoint: overrides, and every way in which it can fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from vlakit.errors import CheckpointError, ConfigError, DeviceError, ProcessingError, VlakitError
from vlakit.hub import resolve
from vlakit.policies.eo1.config import EO1Config
from vlakit.policies.eo1.conversation import EO1_TOKENS
from vlakit.policies.eo1.processor import make_processors
from vlakit.processing import load_processors
from vlakit.processing.text import copy_tokenizer

CAMERA, STATE = "observation.images.top", "observation.state"
STATS = {
    STATE: {"mean": [0.0, 1.0], "std": [1.0, 2.0]},
    "action": {"mean": [0.5], "std": [2.0]},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint without weights, made from the preset."""
    config = EO1Config.from_json(
        {
            "vlm_base": "tiny-qwen2.5-vl",
            "chunk_size": 4,
            "n_action_steps": 2,
            "image_min_pixels": 28 * 28,
            "image_max_pixels": 56 * 56,
            "device": "cpu",
            "input_features": {
                CAMERA: {"type": "VISUAL", "shape": [3, 56, 56]},
                STATE: {"type": "STATE", "shape": [2]},
            },
            "output_features": {"action": {"type": "ACTION", "shape": [1]}},
        }
    )
    for pipeline in make_processors(config, STATS):
        pipeline.save(tmp_path)
    config.save(tmp_path)
    return tmp_path


def raw(camera: str = CAMERA, **changes: Any) -> dict[str, Any]:
    batch = {
        camera: torch.zeros(2, 3, 56, 56, dtype=torch.uint8),
        STATE: torch.tensor([[1.0, 3.0], [2.0, 5.0]]),
        "task": ["open the drawer", "close"],
    }
    return {key: value for key, value in (batch | changes).items() if value is not None}


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_saved_checkpoint_processes_and_goes_back(folder: Path) -> None:
    preprocess, postprocess = load_processors(folder)
    batch = preprocess(raw())
    assert batch["observation.state"].tolist() == [[1.0, 1.0], [2.0, 2.0]]
    assert batch["pixel_values"].shape == (2 * 16, 1176)
    assert batch["image_grid_thw"].tolist() == [[1, 4, 4]] * 2
    assert postprocess(torch.ones(2, 4, 1)).unique().tolist() == [2.5]


def test_the_input_batch_stays_as_it_was(folder: Path) -> None:
    given = raw()
    before = {key: value.clone() for key, value in given.items() if isinstance(value, torch.Tensor)}
    load_processors(folder)[0](given)
    assert given.keys() == raw().keys()
    assert all(torch.equal(given[key], before[key]) for key in before)


def test_rows_end_with_the_action_tokens_at_inference_and_start_together_in_training(
    folder: Path,
) -> None:
    preprocess, _ = load_processors(folder)
    infer = preprocess(raw())
    train = preprocess(raw(action=torch.zeros(2, 4, 1)))
    is_action = infer["input_ids"] == infer["action_token_id"]
    assert torch.equal(is_action[0], is_action[1])
    assert is_action.sum(1).tolist() == [4, 4]
    assert infer["attention_mask"][1, 0] == 0
    assert train["attention_mask"][1, -1] == 0


def test_overrides_reach_their_steps(folder: Path) -> None:
    preprocess, _ = load_processors(folder, chunk_size=6, image_max_pixels=28 * 28, dtype="float32")
    batch = preprocess(raw())
    assert (batch["input_ids"][0] == batch["action_token_id"]).sum() == 6
    assert batch["image_grid_thw"].tolist() == [[1, 2, 2]] * 2


def test_an_unknown_override_is_answered_with_the_nearest(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"image_max_pixel=3 is no setting.*'image_max_pixels'"):
        load_processors(folder, image_max_pixel=3)


def test_a_normalization_override_changes_both_directions(folder: Path) -> None:
    modes = dict.fromkeys(("VISUAL", "STATE", "ACTION"), "IDENTITY")
    preprocess, postprocess = load_processors(folder, normalization_mapping=modes)
    assert preprocess(raw())[STATE].tolist() == raw()[STATE].tolist()
    assert postprocess(torch.ones(1, 1)).item() == 1.0


def test_statistics_of_another_dataset_replace_the_stored_ones(folder: Path) -> None:
    other = STATS | {"action": {"mean": [0.0], "std": [1.0]}}
    _, postprocess = load_processors(folder, stats=other)
    assert postprocess(torch.ones(1, 1)).item() == 1.0


def test_statistics_follow_the_rename_map(folder: Path) -> None:
    stats = {"observation.joints": STATS[STATE], "action": STATS["action"]}
    preprocess, _ = load_processors(folder, stats=stats, rename_map={"observation.joints": STATE})
    batch = preprocess(raw(**{STATE: None, "observation.joints": torch.tensor([[1.0, 3.0]] * 2)}))
    assert batch[STATE].tolist() == [[1.0, 1.0]] * 2


def test_a_rename_map_makes_a_foreign_camera_fit(folder: Path) -> None:
    preprocess, _ = load_processors(folder, rename_map={"observation.image": CAMERA})
    batch = preprocess(raw("observation.image"))
    assert CAMERA in batch
    assert "observation.image" not in batch


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({CAMERA: None}, "needs the cameras.*the batch has none"),
        ({STATE: None}, "needs 'observation.state'"),
        ({"task": None}, "'task' is None: expected one instruction for each of the 2"),
        ({"task": ["one"]}, "expected one instruction for each of the 2 samples"),
        ({CAMERA: torch.zeros(2, 56, 56, 3)}, r"has shape \[2, 56, 56, 3\].*channels"),
        ({STATE: torch.zeros(2, 5)}, "has 5 dimensions, its statistics have 2"),
        ({"task": ["<|image_pad|>", "x"]}, "contains the special token <.image_pad"),
    ],
)
def test_a_batch_that_does_not_fit_is_explained(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    preprocess, _ = load_processors(folder)
    with pytest.raises(ProcessingError, match=message):
        preprocess(raw(**changes))


def test_a_camera_under_another_name_is_answered_with_a_rename_map(folder: Path) -> None:
    preprocess, _ = load_processors(folder)
    with pytest.raises(ProcessingError) as error:
        preprocess(raw("observation.image"))
    assert '--rename_map=\'{"observation.image": "observation.images.top"}\'' in str(error.value)


def test_without_pipelines_statistics_are_asked_for_and_enough(folder: Path) -> None:
    for path in folder.glob("policy_*"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"has no policy_preprocessor\.json.*Pass stats="):
        load_processors(folder)
    preprocess, _ = load_processors(folder, stats=STATS, device="cpu")
    assert preprocess(raw())["pixel_values"].shape == (32, 1176)


def test_a_checkpoint_with_half_its_pipelines_is_refused(folder: Path) -> None:
    (folder / "policy_postprocessor.json").unlink()
    with pytest.raises(CheckpointError, match=r"policy_postprocessor\.json is missing"):
        load_processors(folder)


def test_missing_statistics_are_found_before_the_first_batch(folder: Path) -> None:
    with pytest.raises(ProcessingError, match="'action' is scaled by MEAN_STD"):
        load_processors(folder, stats={STATE: STATS[STATE]})


def test_a_tokenizer_too_large_for_the_embedding_is_refused(folder: Path) -> None:
    edit_config(folder, vlm_config={"text_config": {"vocab_size": 1330}})
    with pytest.raises(CheckpointError, match="the embedding has 1330 rows"):
        load_processors(folder)


def test_token_ids_that_disagree_with_the_checkpoint_are_refused(folder: Path) -> None:
    edit_config(folder, vlm_config={"image_token_id": 7, "text_config": {"vocab_size": 2000}})
    with pytest.raises(CheckpointError, match=r"'<\|image_pad\|>' has id .* checkpoint says 7"):
        load_processors(folder)


def test_a_tokenizer_listed_as_artifact_is_found(folder: Path) -> None:
    (folder / "tokenizer").rename(folder / "text")
    path = folder / "policy_preprocessor.json"
    content = json.loads(path.read_text())
    content["steps"][4]["config"]["processor_name"] = "text"
    content["steps"][4]["artifacts"] = {"processor_name": "text"}
    path.write_text(json.dumps(content))
    assert "input_ids" in load_processors(folder)[0](raw())


@pytest.fixture
def upstream(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of the EO-1 project: tokenizer beside the weights, ids stated, no pipelines."""
    upstream = tmp_path_factory.mktemp("upstream")
    copy_tokenizer(folder / "tokenizer", upstream)
    first = 1328
    tokenizer = Tokenizer.from_file(str(upstream / "tokenizer.json"))
    tokenizer.add_special_tokens([*EO1_TOKENS[:2], "<|action_pass|>", *EO1_TOKENS[2:]])
    tokenizer.save(str(upstream / "tokenizer.json"))
    entries = json.loads((resolve("tiny-qwen2.5-vl") / "config.json").read_text())
    entries |= {"model_type": "eo1", "action_chunk_size": 4, "max_action_dim": 8}
    entries |= {"action_token_id": first + 1, "state_token_id": first + 5}
    (upstream / "config.json").write_text(json.dumps(entries))
    return upstream


FEATURES = {
    "input_features": {
        CAMERA: {"type": "VISUAL", "shape": [3, 56, 56]},
        STATE: {"type": "STATE", "shape": [2]},
    },
    "output_features": {"action": {"type": "ACTION", "shape": [1]}},
}


def test_upstream_checkpoints_keep_their_own_token_ids(upstream: Path) -> None:
    preprocess, _ = load_processors(upstream, stats=STATS, device="cpu", **FEATURES)
    batch = preprocess(raw())
    assert (batch["action_token_id"], batch["state_token_id"]) == (1329, 1333)
    assert (batch["input_ids"] == 1329).sum() == 2 * 4


def test_upstream_token_ids_that_disagree_with_the_tokenizer_are_refused(upstream: Path) -> None:
    edit_config(upstream, state_token_id=1332)
    with pytest.raises(CheckpointError, match=r"'<\|state_pad\|>' has id 1333.*says 1332"):
        load_processors(upstream, stats=STATS, device="cpu", **FEATURES)


def test_a_device_that_is_not_there_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="device='cuda' is not available"):
        load_processors(folder, device="cuda")


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VlakitError, match="nowhere"):
        load_processors(tmp_path / "nowhere")
