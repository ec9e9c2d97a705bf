# SPDX-License-Identifier: Apache-2.0
"""Damaged checkpoints and datasets as a user meets them: one line, code 2, nothing written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.end_to_end.damage import (
    WEIGHT_FAULTS,
    Damage,
    cut,
    edit_json,
    edit_table,
    edit_tensors,
    one_line,
    remove,
    with_value,
    write,
)
from tests.end_to_end.training_command import DATA, DATASET, POLICY, RUN, train
from vlakit.datasets import LeRobotDataset
from vlakit.errors import VlakitError
from vlakit.features import FeatureType, PolicyFeature
from vlakit.hub import presets
from vlakit.policies.eo1 import EO1Config, EO1Policy
from vlakit.policies.registry import make_policy, make_processors
from vlakit.processing import load_processors

ENV = ["--env.type=metaworld", "--env.task=reach-v3", "--policy.device=cpu"]
PRE, POST, CONFIG = "policy_preprocessor.json", "policy_postprocessor.json", "config.json"
PRE_STATE = "policy_preprocessor_step_2_normalizer_processor.safetensors"
POST_STATE = "policy_postprocessor_step_0_unnormalizer_processor.safetensors"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run of one step."""
    output_dir = tmp_path_factory.mktemp("finished") / "run"
    assert train(output_dir, "--steps=1") == 0
    return output_dir


@pytest.fixture(scope="module")
def for_metaworld(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with the cameras, state and action of Meta-World."""
    config = EO1Config(
        vlm_base="tiny-qwen2.5-vl",
        device="cpu",
        input_features={
            "observation.image": PolicyFeature(FeatureType.VISUAL, (3, 480, 480)),
            "observation.state": PolicyFeature(FeatureType.STATE, (4,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (4,))},
    )
    folder = tmp_path_factory.mktemp("for_metaworld") / "checkpoint"
    policy = make_policy(config)
    policy.save_pretrained(folder)
    stats = {
        name: {"mean": [0.0] * 4, "std": [1.0] * 4} for name in ("observation.state", "action")
    }
    for pipeline in make_processors(policy.config, stats):
        pipeline.save(folder)
    return folder


def copied(source: Path, target: Path, damage: Damage | None = None) -> Path:
    shutil.copytree(source, target, symlinks=True, copy_function=shutil.copyfile)
    if damage is not None:
        damage(target)
    return target


@pytest.mark.parametrize("fault", WEIGHT_FAULTS)
def test_weights(
    fault: str,
    finished: Path,
    for_metaworld: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage, words = WEIGHT_FAULTS[fault]
    out = tmp_path / "out"
    run = copied(finished, tmp_path / "run")
    folder = run / "checkpoints" / "000001" / "pretrained_model"
    damage(folder)
    new = ["train", *DATA, *RUN, f"--output_dir={out}"]
    one_line(capsys, [*new, f"--policy.path={folder}"], *words, out=out)
    one_line(capsys, [*new, *POLICY, f"--policy.pretrained_path={folder}"], *words, out=out)
    resumed = ["train", "--resume=true", f"--config_path={folder}/train_config.json", "--steps=2"]
    one_line(capsys, resumed, *words, out=run)
    folder = copied(for_metaworld, tmp_path / "checkpoint", damage)
    arguments = ["eval", f"--policy.path={folder}", *ENV, f"--output_dir={out}"]
    one_line(capsys, arguments, *words, out=out)
    with pytest.raises(VlakitError):
        EO1Policy.from_pretrained(folder)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove("config.json"), ("config.json is missing", "Check the path")),
        (write("config.json", b"[1"), ("config.json cannot be read as JSON",)),
        (remove("model.safetensors"), ("has no weights; expected model.safetensors",)),
        (cut("model.safetensors"), ("model.safetensors is no complete safetensors file",)),
        (remove("tokenizer.json"), ("has no tokenizer.json", "--policy.vlm_base")),
        (
            edit_tensors("model.safetensors", lambda t: t.update({"model.x": torch.ones(1)})),
            ("1 unexpected: model.x",),
        ),
        (
            edit_json("config.json", lambda c: c["text_config"].update(num_hidden_layers=9)),
            ("missing: model.vlm_backbone.model.language_model.layers.",),
        ),
        (
            edit_json("config.json", lambda c: c["text_config"].update(vocab_size="many")),
            ("vocab_size='many'; expected a whole number",),
        ),
    ],
)
def test_backbones(
    damage: Damage,
    words: tuple[str, ...],
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from safetensors.torch import load_file, save_file

    base = copied(presets()["tiny-qwen2.5-vl"], tmp_path / "base")
    weights = finished / "checkpoints/last/pretrained_model/model.safetensors"
    prefix = "model.vlm_backbone."
    tensors = {k.removeprefix(prefix): v for k, v in load_file(weights).items() if prefix in k}
    save_file(tensors, base / "model.safetensors")
    damage(base)
    out = tmp_path / "out"
    arguments = ["train", *DATA, *POLICY, *RUN, f"--output_dir={out}", f"--policy.vlm_base={base}"]
    one_line(capsys, arguments, *words, out=out)


STEP_CONFIG = "the configuration of 'eo1_conversation_template_processor'"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove(CONFIG), (f"{CONFIG} is missing",)),
        (write(CONFIG, b"{"), (f"{CONFIG} cannot be read as JSON", "Restore")),
        (write(CONFIG, b'{"model_type": "llama"}'), ("it says 'llama'", "Give a policy")),
        (edit_json(CONFIG, lambda c: c.update(type="act")), (CONFIG, "policy type 'act'", "eo1")),
        (edit_json(CONFIG, lambda c: c.update(chunk_sice=3)), ("Did you mean 'chunk_size'?",)),
        (edit_json(CONFIG, lambda c: c.update(chunk_size="a")), ("chunk_size=a: expected int",)),
        (remove(PRE), (f"{PRE} is missing",)),
        (remove(POST), (f"{POST} is missing",)),
        (write(PRE, b"{"), (f"{PRE} cannot be read as JSON",)),
        (write(PRE, b'{"steps": ["a"]}'), (f"{PRE} is not a processor file", "found ['a']")),
        (remove(PRE_STATE), (f"{PRE_STATE}, which {PRE} names, cannot be read",)),
        (cut(POST_STATE), (f"{POST_STATE}, which {POST} names, cannot be read",)),
        (
            edit_tensors(POST_STATE, lambda t: t.pop("action.std")),
            ("'action' is scaled by MEAN_STD, which needs the statistic 'std'",),
        ),
        (
            edit_tensors(PRE_STATE, lambda t: t["action.mean"].fill_(float("nan"))),
            ("the statistic 'mean' of 'action' is not finite",),
        ),
        (
            edit_json(PRE, lambda c: c["steps"][3]["config"].update(chunk_sise=3)),
            (f"unknown key 'chunk_sise' in {STEP_CONFIG}", "Did you mean 'chunk_size'?"),
        ),
        (
            edit_json(PRE, lambda c: c["steps"][4].update(registry_name="eo1_qwen_procesor")),
            ("step 'eo1_qwen_procesor'", "Did you mean 'eo1_qwen_processor'?"),
        ),
        (cut("tokenizer/tokenizer.json"), ("tokenizer.json is damaged or no tokenizer",)),
        (write("tokenizer/preprocessor_config.json", b"{"), ("preprocessor_config.json",)),
    ],
)
def test_the_other_files_of_a_checkpoint(
    damage: Damage,
    words: tuple[str, ...],
    for_metaworld: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = copied(for_metaworld, tmp_path / "checkpoint", damage)
    out = tmp_path / "out"
    arguments = ["eval", f"--policy.path={folder}", *ENV, f"--output_dir={out}"]
    one_line(capsys, arguments, *words, out=out)
    with pytest.raises(VlakitError):
        load_processors(folder)


OPTIMIZER, GROUPS = "optimizer_state.safetensors", "optimizer_param_groups.json"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove(OPTIMIZER), (f"{OPTIMIZER} is missing", "--policy.path")),
        (cut(OPTIMIZER), (f"{OPTIMIZER} is damaged", "Resume from another")),
        (write(OPTIMIZER, b"PK" * 999), (f"{OPTIMIZER} is damaged",)),
        (
            edit_tensors(OPTIMIZER, lambda t: t.update(odd=torch.ones(1))),
            (f"{OPTIMIZER} holds the tensor 'odd'",),
        ),
        (
            edit_tensors(OPTIMIZER, lambda t: t.pop("state/0/exp_avg")),
            (f"{OPTIMIZER} lacks state/0/exp_avg",),
        ),
        (
            edit_tensors(OPTIMIZER, lambda t: t.update({"state/0/exp_avg": torch.ones(3)})),
            ("exp_avg of parameter 0 has shape (3,)",),
        ),
        (cut(GROUPS), (f"{GROUPS} cannot be read as JSON",)),
        (write(GROUPS, b"[{}]"), (f"{GROUPS} is no list of parameter groups",)),
        (write("scheduler_state.json", b"[1]"), ("scheduler_state.json holds a list",)),
        (cut("rng_state.safetensors"), ("rng_state.safetensors is damaged",)),
        (write("training_step.json", b"{}"), ("training_step.json lacks a usable 'step'",)),
        (write("../pretrained_model/vlakit_config.json", b"{"), ("vlakit_config.json cannot be",)),
    ],
)
def test_training_states(
    damage: Damage,
    words: tuple[str, ...],
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = copied(finished, tmp_path / "run")
    checkpoint = run / "checkpoints" / "000001"
    damage(checkpoint / "training_state")
    arguments = ["train", "--resume=true", f"--config_path={checkpoint}", "--steps=2"]
    one_line(capsys, arguments, *words, out=run)


INFO, STATS = "meta/info.json", "meta/stats.json"
FRAMES = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
VIDEO = "videos/observation.images.top/chunk-000/file-000.mp4"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove(INFO), ("has no meta/info.json", "--dataset.root")),
        (cut(INFO), ("info.json cannot be read as JSON",)),
        (edit_json(INFO, lambda c: c.update(features=[1])), ("info.json: features is a list",)),
        (
            edit_json(INFO, lambda c: c["features"]["action"].update(shape=4)),
            ("feature 'action' has the shape 4; expected a list",),
        ),
        (
            edit_json(INFO, lambda c: c["features"].pop("task_index")),
            ("info.json lacks the feature 'task_index'",),
        ),
        (cut(FRAMES), ("file-000.parquet is not a whole parquet file", "fetch the dataset again")),
        (write(FRAMES, b"text" * 99), ("file-000.parquet is not a whole parquet file",)),
        (cut(EPISODES), ("file-000.parquet is not a whole parquet file",)),
        (
            edit_table(FRAMES, lambda table: table.slice(0, len(table) - 3)),
            ("episode 2 has 17 frames, but the metadata promise 20",),
        ),
        (remove(VIDEO), ("file-000.mp4 is missing",)),
        (cut(VIDEO), ("file-000.mp4 cannot be decoded", "expected a whole mp4")),
        (cut(VIDEO, 0.97), ("file-000.mp4",)),
        (write(VIDEO, b"text" * 99), ("file-000.mp4 cannot be decoded",)),
        (remove(STATS), ("stats.json is missing", "write_stats")),
        (write(STATS, b"[1]"), ("stats.json holds a list",)),
        (
            edit_json(STATS, lambda c: c.pop("observation.state")),
            ("lack", "feature 'observation.state'"),
        ),
        (
            edit_json(STATS, lambda c: c["action"].pop("std")),
            ("lack std of feature 'action'", "write_stats"),
        ),
        (
            edit_json(STATS, lambda c: c["action"].update(mean=[0.0])),
            ("hold 1 numbers as mean of feature 'action'; expected 4",),
        ),
        (
            edit_json(STATS, lambda c: c["action"].update(mean=["a"])),
            ("stats.json: the entry of feature 'action' is not readable",),
        ),
        (
            edit_table(FRAMES, with_value("action", 3, float("nan"))),
            (FRAMES, "'action' of episode 0, frame 3 is [nan", "--dataset.episodes"),
        ),
        (
            edit_table(FRAMES, with_value("observation.state", 5, float("inf"))),
            ("'observation.state' of episode 0, frame 5 is [inf",),
        ),
    ],
)
def test_datasets(
    damage: Damage,
    words: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = copied(DATASET, tmp_path / "data", damage)
    out = tmp_path / "out"
    arguments = ["train", *DATA, *POLICY, *RUN, f"--dataset.root={root}", f"--output_dir={out}"]
    one_line(capsys, arguments, *words, out=out)


def test_an_empty_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def damage(root: Path) -> None:
        for name in (FRAMES, EPISODES):
            edit_table(name, lambda table: table.slice(0, 0))(root)
        edit_json(INFO, lambda c: c.update(total_episodes=0, total_frames=0))(root)

    root = copied(DATASET, tmp_path / "data", damage)
    out = tmp_path / "out"
    arguments = ["train", *DATA, *POLICY, *RUN, f"--dataset.root={root}", f"--output_dir={out}"]
    one_line(capsys, arguments, "holds no episodes; expected at least one", out=out)
    with pytest.raises(VlakitError, match="holds no episodes"):
        LeRobotDataset("local/empty", root)


def test_a_worker_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def scramble(root: Path) -> None:
        data = bytearray((root / VIDEO).read_bytes())
        start = len(data) // 10
        data[start:-200] = bytes(len(data) - 200 - start)
        (root / VIDEO).write_bytes(data)

    root = copied(DATASET, tmp_path / "data", scramble)
    out = tmp_path / "out"
    code = train(out, f"--dataset.root={root}", "--num_workers=1", "--batch_size=70", "--steps=1")
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2
    assert f"{VIDEO} " in error
    assert "Traceback" not in error
    assert not out.exists()


def test_near_constant_dimensions_are_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def flatten(content: dict) -> None:
        for stat in ("min", "max", "mean"):
            content["action"][stat][0] = 0.5
        content["action"]["std"][0] = 0.0

    root = copied(DATASET, tmp_path / "data", edit_json(STATS, flatten))
    assert train(tmp_path / "run", f"--dataset.root={root}", "--steps=1") == 0
    said = [record.getMessage() for record in caplog.records if "near-constant" in record.message]
    assert said == ["near-constant dimensions, scaled by a floored range: action [0]"]
