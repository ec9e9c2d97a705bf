# SPDX-License-Identifier: Apache-2.0
"""The policy around the network: chunks, draws, tokenizers, saving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.policies.pi0_fast.tiny_policy import (
    CAMERAS,
    DIM,
    HORIZON,
    SIZES,
    config,
    fast_tokenizer,
    processors,
    raw_batch,
    save,
)
from vlakit.errors import ActionDecodeError, CheckpointError, ConfigError, ProcessingError
from vlakit.evaluation.planner import PolicyPlanner, stack_observations
from vlakit.evaluation.planning import EpisodeMemory
from vlakit.features import ACTION_TOKEN_MASK, LANGUAGE_MASK
from vlakit.hub import resolve
from vlakit.policies.pi0_fast import PI0FastPolicy
from vlakit.policies.registry import make_policy
from vlakit.processing import load_processors

NARROW = SIZES["text_config"] | {"vocab_size": 2000}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fast_tokenizer(tmp_path_factory.mktemp("fast"))


@pytest.fixture(scope="module")
def checkpoint(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return save(PI0FastPolicy(config(tokenizer)), tmp_path_factory.mktemp("policy"))


@pytest.mark.parametrize("layout", ["lerobot", "openpi"])
def test_training_lowers_the_loss_and_the_policy_then_says_its_chunks(
    tokenizer: Path, layout: str
) -> None:
    policy = PI0FastPolicy(config(tokenizer, token_layout=layout)).train()
    preprocess, _ = processors(policy.config)
    batch = preprocess(raw_batch())
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss, numbers = policy(batch)
        losses.append(numbers["loss"])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.1 * losses[0]
    asked = preprocess(raw_batch(with_actions=False))
    tokens = policy.predict_action_tokens(asked)
    start = int(layout == "lerobot")
    for row, said in enumerate(tokens):
        learnt = batch["action.tokens"][row][batch["action.token_mask"][row]].tolist()
        assert said == learnt[start:-1]
    reference = PI0FastPolicy(policy.config.override({"decoding": "reference"}))
    reference.load_state_dict(policy.state_dict())
    assert reference.predict_action_tokens(asked) == tokens
    error = (policy.predict_action_chunk(asked) - batch["action"]).abs().max()
    assert error < 0.25, "half a quantisation step per coefficient"


def test_two_actions_of_a_chunk_are_handed_out(checkpoint: Path) -> None:
    policy = PI0FastPolicy.from_pretrained(checkpoint)
    preprocess, _ = load_processors(checkpoint)
    batch = preprocess(raw_batch(with_actions=False))
    chunk = policy.predict_action_chunk(batch)
    assert (chunk.shape, chunk.dtype) == ((3, HORIZON, DIM), torch.float32)
    handed = [policy.select_action(batch) for _ in range(4)]
    for action, step in zip(handed, (0, 1, 0, 1), strict=True):
        assert torch.equal(action, chunk[:, step])


def test_rollouts_add_a_chunk_to_the_states_it_was_predicted_from(
    tokenizer: Path, tmp_path: Path
) -> None:
    folder = save(PI0FastPolicy(config(tokenizer, use_relative_actions=True)), tmp_path)
    policy = PI0FastPolicy.from_pretrained(folder)
    preprocess, postprocess = load_processors(folder)
    raw = raw_batch(with_actions=False)
    observations = [
        {"observation.state": raw["observation.state"][row].numpy()}
        | {name: np.full((20, 28, 3), 50 * row, np.uint8) for name in CAMERAS}
        for row in range(3)
    ]
    memories = [EpisodeMemory(row, task, torch.Generator()) for row, task in enumerate(raw["task"])]
    planned = PolicyPlanner(policy, preprocess, postprocess).plan(observations, memories)
    batch = preprocess(stack_observations(observations) | {"task": raw["task"]})
    executed = policy.predict_action_chunk(batch)[:, :2]
    expected = executed + raw["observation.state"][:, None, :DIM]
    torch.testing.assert_close(torch.from_numpy(np.stack(planned)), expected)


def test_draws_of_a_row_do_not_depend_on_the_rows_beside_it(checkpoint: Path) -> None:
    policy = PI0FastPolicy.from_pretrained(checkpoint, temperature=1.0)
    preprocess, _ = load_processors(checkpoint)
    raw = raw_batch(with_actions=False)
    noise = policy.make_noise(3, [torch.Generator().manual_seed(row) for row in range(3)])
    assert noise is not None
    assert noise.shape == (3, policy.config.max_decoding_steps)
    assert ((noise >= 0) & (noise < 1)).all()
    together = policy.predict_action_chunk(preprocess(raw), noise=noise)
    alone = policy.predict_action_chunk(
        preprocess({name: value[1:2] for name, value in raw.items()}), noise=noise[1:2]
    )
    torch.testing.assert_close(together[1:2], alone)
    assert PI0FastPolicy.from_pretrained(checkpoint).make_noise(1, [torch.Generator()]) is None
    with pytest.raises(ConfigError, match="2 generators for 1 rows"):
        policy.make_noise(1, [torch.Generator()] * 2)


def test_reference_decoding_names_the_rows_that_failed(checkpoint: Path) -> None:
    policy = PI0FastPolicy.from_pretrained(checkpoint, decoding="reference")
    preprocess, postprocess = load_processors(checkpoint)
    batch = preprocess(raw_batch(with_actions=False))
    chunk, failures = policy.try_action_chunk(batch)
    assert failures.keys() == {0, 1, 2}
    assert chunk.isnan().all()
    assert postprocess(chunk).isnan().all()
    with pytest.raises(ActionDecodeError, match=r"3 of 3 rows .*decoding=constrained"):
        policy.predict_action_chunk(batch)


def test_settings_that_change_are_saved_with_the_processors(
    checkpoint: Path, tmp_path: Path
) -> None:
    policy = PI0FastPolicy.from_pretrained(
        checkpoint, token_layout="openpi", tokenizer_max_length=30, decoding="reference"
    )
    policy.save_pretrained(tmp_path)
    again = PI0FastPolicy.from_pretrained(tmp_path)
    assert again.config.token_layout == "openpi"
    assert again.config.decoding == "reference"
    preprocess, _ = load_processors(tmp_path)
    batch = preprocess(raw_batch() | {"task": ["OPEN", "b", "c"]})
    assert batch["task"][0].startswith("Task: open, State:")
    assert batch["observation.language.tokens"].shape == (3, 30)
    assert batch["action.tokens"][0, 0] != 2, "no BOS before openpi's action tokens"


def test_another_fast_vocabulary_is_refused_until_it_was_trained_with(
    checkpoint: Path, tmp_path: Path
) -> None:
    other = fast_tokenizer(tmp_path, seed=9, vocab_size=290)
    policy = PI0FastPolicy.from_pretrained(checkpoint, action_tokenizer_name=str(other))
    preprocess, _ = load_processors(checkpoint, action_tokenizer_name=str(other))
    asked = preprocess(raw_batch(with_actions=False))
    with pytest.raises(ConfigError, match=r"another vocabulary \(\d+ .*trained with \(\d+ "):
        policy.predict_action_chunk(asked)
    policy.train()
    policy(preprocess(raw_batch()))
    assert policy.predict_action_chunk(asked).isfinite().all()
    same = fast_tokenizer(tmp_path / "same")
    PI0FastPolicy.from_pretrained(checkpoint, action_tokenizer_name=str(same)).predict_action_chunk(
        asked
    )


def test_tokenizers_that_do_not_fit_are_refused(
    checkpoint: Path, tokenizer: Path, tmp_path: Path
) -> None:
    preprocess, _ = load_processors(checkpoint)
    asked = preprocess(raw_batch(with_actions=False))
    with pytest.raises(CheckpointError, match=r"no '<bos>'.*--policy.text_tokenizer_name"):
        load_processors(checkpoint, text_tokenizer_name="tiny-qwen2.5-vl")
    text = (resolve("tiny-paligemma") / "tokenizer.json").read_text(encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text(text.replace('"Action":', '"Akzion":'), "utf-8")
    message = r"splits 'Action: ' into \['A', .*--policy.text_tokenizer_name"
    with pytest.raises(CheckpointError, match=message):
        load_processors(checkpoint, text_tokenizer_name=str(tmp_path))
    with pytest.raises(CheckpointError, match=message):
        processors(config(tokenizer, text_tokenizer_name=str(tmp_path)))
    other = PI0FastPolicy.from_pretrained(checkpoint, text_tokenizer_name=str(tmp_path))
    with pytest.raises(CheckpointError, match=message):
        other.predict_action_chunk(asked)
    narrow = config(tokenizer, paligemma_config=SIZES | {"text_config": NARROW})
    with pytest.raises(CheckpointError, match="3328 pieces, the network has rows for 2000"):
        PI0FastPolicy(narrow).predict_action_chunk(asked)


def test_missing_cameras_and_unprocessed_batches_are_named(checkpoint: Path) -> None:
    preprocess, _ = load_processors(checkpoint)
    batch = preprocess(raw_batch())
    policy = PI0FastPolicy.from_pretrained(checkpoint)
    one = {name: value for name, value in batch.items() if name != CAMERAS[1]}
    with pytest.raises(ProcessingError, match=r"images\.b'\] missing"):
        policy(one)
    lenient = PI0FastPolicy.from_pretrained(checkpoint, allow_missing_cameras=True)
    assert lenient(one)[0].isfinite()
    with pytest.raises(ProcessingError, match=r"no 'action.tokens'.*preprocessor first"):
        policy(raw_batch())


def test_an_empty_camera_changes_nothing_but_the_settings(tokenizer: Path) -> None:
    preprocess, _ = processors(config(tokenizer))
    batch = preprocess(raw_batch())
    losses = []
    for empty in (0, 2):
        torch.manual_seed(0)
        losses.append(PI0FastPolicy(config(tokenizer, empty_cameras=empty))(batch)[0])
    torch.testing.assert_close(losses[0], losses[1])


def test_a_policy_of_another_type_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"type": "eo1"}')
    with pytest.raises(ConfigError, match="is of type 'eo1'"):
        PI0FastPolicy.from_pretrained(tmp_path)


def test_a_new_run_with_its_own_settings_takes_the_checkpoint_s_sizes(checkpoint: Path) -> None:
    stored = PI0FastPolicy.from_pretrained(checkpoint).config
    fresh = stored.override({"pretrained_path": str(checkpoint)})
    given = type(fresh)(
        **{**vars(fresh), "paligemma_config": None, "image_resolution": stored.image_resolution}
    )
    assert make_policy(given).config.paligemma_config == stored.paligemma_config


def test_tokens_are_counted_without_padding_and_with_the_cameras_that_are_there(
    tokenizer: Path,
) -> None:
    policy = PI0FastPolicy(config(tokenizer, empty_cameras=1))
    preprocess, _ = processors(policy.config)
    batch = preprocess(raw_batch())
    texts = [batch[key] for key in (LANGUAGE_MASK, ACTION_TOKEN_MASK)]
    rows, patches = len(texts[0]), 4
    expected = rows * 2 * patches + sum(int(mask.sum()) for mask in texts)
    assert policy.num_tokens(batch) == expected < rows * (3 * patches + texts[0].shape[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own
def test_a_compiled_network_gives_the_same(checkpoint: Path) -> None:
    plain = PI0FastPolicy.from_pretrained(checkpoint)
    compiled = PI0FastPolicy.from_pretrained(checkpoint, compile_model=True, compile_mode="default")
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    preprocess, _ = load_processors(checkpoint)
    batch, asked = preprocess(raw_batch()), preprocess(raw_batch(with_actions=False))
    torch.testing.assert_close(compiled(batch)[0], plain(batch)[0])
    assert compiled.predict_action_tokens(asked) == plain.predict_action_tokens(asked)


def test_numbers_that_are_not_finite_are_not_blamed_on_decoding(tokenizer: Path) -> None:
    policy = PI0FastPolicy(config(tokenizer))
    policy.model.paligemma.lm_head.weight.data.fill_(torch.nan)
    preprocess, _ = processors(policy.config)
    with pytest.raises(ActionDecodeError, match=r"logits are not finite\. Look for NaN") as caught:
        policy.predict_action_chunk(preprocess(raw_batch(with_actions=False)))
    assert "constrained" not in str(caught.value)


def test_the_vector_of_padding_is_not_trained(tokenizer: Path) -> None:
    """Not even where a prompt spells it, as in LeRobot."""
    policy = PI0FastPolicy(config(tokenizer)).train()
    preprocess, _ = processors(policy.config)
    batch = preprocess(raw_batch())
    batch["observation.language.tokens"][:, 3] = 0
    policy(batch)[0].backward()
    gradient = policy.model.paligemma.language_model.embed_tokens.weight.grad
    assert gradient is not None
    assert not gradient[0].any()
    assert gradient[batch["observation.language.tokens"][:, 1]].any()
