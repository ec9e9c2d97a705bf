# SPDX-License-Identifier: Apache-2.0
"""The whole policy, from raw batches to actions, against what LeRobot 0.6.1 computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.fixtures_root import cases
from tests.parity.pi0_fast.recorded import FAST_TOKENIZER, RecordedCase, norm_error, relative
from vlakit.errors import ActionDecodeError, CheckpointError, ConfigError, ProcessingError
from vlakit.policies.pi0_fast import PI0FastPolicy
from vlakit.policies.pi0_fast.weights import EMBEDDING, LM_HEAD
from vlakit.processing import FastTokenizer, load_processors

NAMES = cases("pi0_fast")
RANDOM_CASES = [name for name in NAMES if name != "overfit"]
FAST = FastTokenizer.from_pretrained(FAST_TOKENIZER)


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest) -> RecordedCase:
    return RecordedCase(request.param)


def test_loss_and_gradients_equal_lerobot(case: RecordedCase) -> None:
    policy = case.policy().train()
    preprocess, _ = case.processors()
    loss, numbers = policy(preprocess(case.raw("train")))
    expected = case.note["train"]["loss"]
    assert abs(loss.item() - expected) <= case.tolerance(1e-5, 3e-3) * abs(expected)
    assert numbers == {"loss": loss.item()}
    loss.backward()
    norms = json.loads((case.folder / "train_grad_norms.json").read_text(encoding="utf-8"))
    largest = max(filter(None, norms.values()))
    gradients = {name: parameter.grad for name, parameter in policy.named_parameters()}
    assert gradients.keys() == norms.keys()
    for name, norm in norms.items():
        assert norm_error(gradients[name], norm, largest) < case.tolerance(1e-4, 0.1), name


@pytest.mark.parametrize("name", RANDOM_CASES)
def test_preprocessed_images_equal_lerobot(name: str) -> None:
    case = RecordedCase(name)
    preprocess, _ = case.processors()
    inputs = case.policy()._inputs(preprocess(case.raw("infer")))
    expected = case.tensors("debug")
    torch.testing.assert_close(inputs.images, expected["preprocessed_images"], rtol=0, atol=1e-5)
    assert torch.equal(inputs.image_mask, expected["image_masks"])


@pytest.mark.parametrize("use_kv_cache", [True, False])
@pytest.mark.parametrize("name", RANDOM_CASES)
def test_reference_decoding_gives_lerobots_tokens(name: str, use_kv_cache: bool) -> None:
    case = RecordedCase(name)
    policy = case.policy(decoding="reference", use_kv_cache=use_kv_cache)
    preprocess, _ = case.processors()
    expected = case.tensors("infer_expected")["kv.tokens" if use_kv_cache else "nokv.tokens"]
    assert policy.predict_action_tokens(preprocess(case.raw("infer"))) == expected.tolist()


def lenient(case: RecordedCase, tokens: Tensor, horizon: int) -> Tensor:
    """Return what LeRobot makes of tokens, malformed ones too, for a horizon given by hand."""
    policy = case.policy()
    vocabulary = policy.codec.vocabulary
    codes = [
        vocabulary.codes(row, check_prefix=False, on_error="reference") for row in tokens.tolist()
    ]
    action_dim = policy.config.action_dim
    chunks = FAST.decode(codes, horizon=horizon, action_dim=action_dim, on_error="relaxed")
    return torch.from_numpy(chunks).float()


@pytest.mark.parametrize("name", RANDOM_CASES)
def test_lenient_decoding_gives_lerobots_chunk(name: str) -> None:
    """LeRobot decodes with n_action_steps as the horizon; given that number, we get its chunk."""
    case = RecordedCase(name)
    expected = case.tensors("infer_expected")
    horizon = case.note["infer"]["decode_horizon_is_n_action_steps"]
    actual = lenient(case, expected["kv.tokens"], horizon)
    torch.testing.assert_close(actual, expected["kv.chunk_prefix_check_off"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", RANDOM_CASES)
def test_a_random_network_fails_by_name_and_constrained_decoding_does_not(name: str) -> None:
    case = RecordedCase(name)
    preprocess, postprocess = case.processors()
    batch = preprocess(case.raw("infer"))
    policy = case.policy(decoding="reference")
    chunk, failures = policy.try_action_chunk(batch)
    assert failures.keys() == set(range(case.note["batch"]))
    assert chunk.isnan().all()
    with pytest.raises(ActionDecodeError, match="spell no action chunk") as caught:
        policy.predict_action_chunk(batch)
    assert caught.value.failures == failures
    policy = case.policy(max_decoding_steps=256)
    chunk = policy.predict_action_chunk(batch)
    assert chunk.shape == (case.note["batch"], policy.config.chunk_size, policy.config.action_dim)
    assert chunk.isfinite().all()
    assert postprocess(chunk).isfinite().all()


@pytest.mark.parametrize(
    ("decoding", "engine"),
    [("constrained", "plain"), ("constrained", "static"), ("reference", "plain")],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_overfitted_policy_gives_lerobots_tokens_and_actions(
    dtype: str, decoding: str, engine: str
) -> None:
    case = RecordedCase("overfit")
    policy = case.policy(dtype=dtype, decoding=decoding, engine=engine)
    preprocess, postprocess = case.processors()
    batch = preprocess(case.raw("infer"))
    expected = case.tensors("infer_expected")
    tokens = policy.predict_action_tokens(batch)
    ends = case.note["infer"][f"{dtype}.kv"]["steps_until_bar"]
    recorded = expected[f"{dtype}.kv.tokens"].tolist()
    assert tokens == [row[: end + 1] for row, end in zip(recorded, ends, strict=True)]
    chunk = policy.predict_action_chunk(batch)
    torch.testing.assert_close(chunk, expected[f"{dtype}.kv.chunk"], rtol=1e-6, atol=1e-6)
    post = expected[f"{dtype}.kv.chunk_post"]
    torch.testing.assert_close(postprocess(chunk), post, rtol=1e-6, atol=1e-6)


def test_the_horizon_is_chunk_size_whatever_is_executed() -> None:
    case = RecordedCase("overfit")
    preprocess, _ = case.processors()
    batch = preprocess(case.raw("infer"))
    steps = case.note["n_action_steps_short"]
    policy = case.policy(n_action_steps=steps)
    expected = case.tensors("infer_expected")
    whole = expected["float32.kv.chunk"]
    torch.testing.assert_close(policy.predict_action_chunk(batch), whole, rtol=1e-6, atol=1e-6)
    executed = torch.stack([policy.select_action(batch) for _ in range(steps)], dim=1)
    torch.testing.assert_close(executed, whole[:, :steps], rtol=1e-6, atol=1e-6)
    squeezed = expected[f"float32.kv.chunk_n_action_steps{steps}"]
    assert relative(executed, squeezed) > 0.1, "LeRobot squeezes the trajectory here"
    as_lerobot = lenient(case, expected["float32.kv.tokens"], steps)
    torch.testing.assert_close(as_lerobot, squeezed, rtol=1e-6, atol=1e-6)


def test_sampling_with_the_global_generator_gives_lerobots_tokens() -> None:
    case = RecordedCase("one_cam_b1_fp32")
    sampling = case.note["infer"]["seeded_sampling"]
    policy = case.policy(decoding="reference", temperature=sampling["temperature"])
    preprocess, _ = case.processors()
    batch = preprocess(case.raw("infer"))
    torch.manual_seed(sampling["seed"])
    expected = case.tensors("infer_expected")["seeded_temp.tokens"]
    assert policy.predict_action_tokens(batch) == expected.tolist()


@pytest.mark.parametrize("name", RANDOM_CASES)
def test_a_missing_embedding_is_a_copy_of_the_head(name: str, tmp_path: Path) -> None:
    case = RecordedCase(name)
    weights = load_file(case.checkpoint / "model.safetensors")
    del weights[EMBEDDING]
    # LeRobot also takes names without the first level.
    weights = {key.removeprefix("model."): value for key, value in weights.items()}
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((case.checkpoint / "config.json").read_text())
    policy = PI0FastPolicy.from_pretrained(tmp_path, paligemma_config=case.sizes, **case.allowed)
    assert torch.equal(policy.get_parameter(EMBEDDING), policy.get_parameter(LM_HEAD))
    loss, _ = policy(case.batch("train"))
    expected = case.note["train"]["loss_when_embed_tokens_key_absent"]
    assert abs(loss.item() - expected) <= case.tolerance(1e-5, 3e-3) * abs(expected)


def test_a_tensor_that_is_missing_or_misshaped_is_refused(tmp_path: Path) -> None:
    case = RecordedCase("overfit")
    weights = load_file(case.checkpoint / "model.safetensors")
    (tmp_path / "config.json").write_text((case.checkpoint / "config.json").read_text())
    lost = next(name for name in weights if name.endswith("q_proj.weight"))
    save_file({k: v for k, v in weights.items() if k != lost}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"1 missing: {lost}"):
        PI0FastPolicy.from_pretrained(tmp_path, paligemma_config=case.sizes)
    with pytest.raises(ConfigError, match=r"image_resolution=\[56, 56\] does not fit"):
        PI0FastPolicy.from_pretrained(case.checkpoint)
    sizes = {"vision_config": case.sizes["vision_config"]}
    with pytest.raises(CheckpointError, match=r"misshaped|missing"):
        PI0FastPolicy.from_pretrained(case.checkpoint, paligemma_config=sizes)


def test_missing_cameras_are_refused_unless_allowed() -> None:
    case = RecordedCase("missing_cam_b2_fp32")
    preprocess, _ = case.processors()
    batch = preprocess(case.raw("infer"))
    policy = case.policy(allow_missing_cameras=False)
    with pytest.raises(ProcessingError, match=r"images\.left.*missing"):
        policy.predict_action_chunk(batch)
    policy = case.policy(allow_missing_cameras=True)
    none = {key: value for key, value in batch.items() if "images" not in key}
    with pytest.raises(ProcessingError, match="none of the policy's cameras"):
        policy.predict_action_chunk(none)


def test_a_saved_policy_is_whole_and_says_the_same(case: RecordedCase, tmp_path: Path) -> None:
    policy = case.policy()
    policy.save_pretrained(tmp_path)
    for part in ("tokenizer/tokenizer.json", "action_tokenizer/processor_config.json"):
        assert (tmp_path / part).is_file()
    again = PI0FastPolicy.from_pretrained(tmp_path)
    preprocess, _ = load_processors(tmp_path)
    for name, value in policy.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    raw = case.raw("infer")
    batch, before = preprocess(raw), case.processors()[0](raw)
    assert torch.equal(batch["observation.language.tokens"], before["observation.language.tokens"])
    assert again.predict_action_tokens(batch) == policy.predict_action_tokens(before)
