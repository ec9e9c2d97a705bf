# SPDX-License-Identifier: Apache-2.0
"""EO-1 as a policy: batches, draws, checkpoints of every layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.unit.policies.backbones.test_qwen2_5_vl_config import FLAT_3B
from tests.unit.policies.eo1.tiny import (
    ACTION_ID,
    STATE_ID,
    VLM_CONFIG,
    tiny_batch,
    tiny_config,
    tiny_policy,
)
from vlakit.checkpoints.pretrained import save_state
from vlakit.errors import CheckpointError, ConfigError, DeviceError, ProcessingError
from vlakit.features import FeatureType, PolicyFeature
from vlakit.policies.base import Policy
from vlakit.policies.eo1 import EO1Config, EO1Policy
from vlakit.policies.eo1.weights import BACKBONE, EMBEDDING, LM_HEAD
from vlakit.policies.registry import make_policy
from vlakit.policies.stored_config import read_policy_config


def _equal(one: Policy, other: Policy) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(ours[k].equal(theirs[k]) for k in ours)


# Batches and actions


def test_loss_depends_on_the_given_noise_and_time_only() -> None:
    policy, batch = tiny_policy(), tiny_batch()
    noise, time = torch.randn(2, 4, 7), torch.tensor([0.2, 0.9])
    first, metrics = policy(batch, noise=noise, time=time)
    second, _ = policy(batch, noise=noise, time=time)
    assert first.shape == ()
    assert first.dtype == torch.float32
    assert first.equal(second)
    assert metrics == {"loss": first.item()}
    assert not first.equal(policy(batch, noise=noise + 1, time=time)[0])


def test_padding_on_either_side_gives_the_same_actions() -> None:
    policy = tiny_policy()
    noise = torch.randn(2, 4, 7)
    together = policy.predict_action_chunk(tiny_batch(side="left"), noise=noise)
    assert together.shape == (2, 4, 3)
    assert together.dtype == torch.float32
    whole = tiny_batch()
    for row, length in enumerate((3, 5)):
        alone = tiny_batch((length,))
        alone["pixel_values"] = whole["pixel_values"][row * 16 : row * 16 + 16]
        alone["observation.state"] = whole["observation.state"][row : row + 1]
        own = policy.predict_action_chunk(alone, noise=noise[row : row + 1])
        assert (own[0] - together[row]).abs().max() < 1e-5


def test_prediction_in_inference_mode_leaves_training_possible() -> None:
    policy = tiny_policy()
    with torch.inference_mode():
        policy.predict_action_chunk(tiny_batch((3,)))
    policy.train()
    policy(tiny_batch())[0].backward()


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_gradient_checkpointing_changes_no_gradient(kind: str) -> None:
    gradients = []
    for recompute in ("none", "layer", "selective"):
        torch.manual_seed(3)
        policy = tiny_policy(activation_checkpointing=recompute, attn_implementation=kind).train()
        loss, _ = policy(tiny_batch(), noise=torch.ones(2, 4, 7), time=torch.tensor([0.3, 0.6]))
        loss.backward()
        gradients.append([p.grad for p in policy.parameters()])
    for plain, *others in zip(*gradients, strict=True):
        assert all(plain.equal(other) for other in others)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns about itself
@pytest.mark.parametrize("recompute", ["none", "layer"])
def test_a_compiled_network_gives_the_same(recompute: str) -> None:
    torch.manual_seed(3)
    plain = tiny_policy().train()
    changes = {"compile_model": True, "activation_checkpointing": recompute}
    compiled = tiny_policy(**changes).train()
    compiled.load_state_dict(plain.state_dict())
    fixed = {"noise": torch.randn(2, 4, 7), "time": torch.tensor([0.3, 0.6])}
    graphs = []
    for lengths in ((3, 5), (7, 2), (11, 4)):
        gradients = []
        for policy in (plain, compiled):
            policy.zero_grad()
            policy(tiny_batch(lengths), **fixed)[0].backward()
            gradients.append({n: p.grad for n, p in policy.named_parameters()})
        torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[0] > 0, "something is compiled"
    assert graphs[0] == graphs[2], "and not anew for another length"
    batch, noise = tiny_batch(side="left"), torch.randn(2, 4, 7)
    own, expected = (p.predict_action_chunk(batch, noise=noise) for p in (compiled, plain))
    torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("forced", [True, False])
def test_mixed_precision_keeps_the_head_in_float32_when_asked(forced: bool) -> None:
    policy = tiny_policy(force_fp32_autocast=forced).train()
    seen: list[torch.dtype] = []
    policy.model.action_out_proj.register_forward_hook(lambda *args: seen.append(args[2].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = policy(tiny_batch())
        policy.predict_action_chunk(tiny_batch(side="left"))
    loss.backward()
    assert set(seen) == {torch.float32 if forced else torch.bfloat16}
    assert loss.dtype == torch.float32


def test_actions_after_the_end_count_only_when_supervised() -> None:
    batch = tiny_batch()
    batch["action_is_pad"] = torch.tensor([[False, False, True, True], [False] * 4])
    changed = batch | {"action": batch["action"].clone()}
    changed["action"][0, 2:] += 5
    noise, time = torch.randn(2, 4, 7), torch.tensor([0.2, 0.9])
    for supervised in (True, False):
        torch.manual_seed(0)
        policy = tiny_policy(supervise_padding_actions=supervised)
        losses = [policy(b, noise=noise, time=time)[0].item() for b in (batch, changed)]
        assert (losses[0] == losses[1]) is not supervised


def test_padded_action_dimensions_count_only_when_supervised() -> None:
    noise, time = torch.randn(2, 4, 7), torch.tensor([0.2, 0.9])
    other = noise.clone()
    other[..., 3:] += 1  # also moves x_t, so compare against a head that ignores it
    policy = tiny_policy(supervise_padding_action_dims=False)
    with torch.no_grad():
        policy.model.action_in_proj.weight[:, 3:] = 0
    losses = [policy(tiny_batch(), noise=n, time=time)[0].item() for n in (noise, other)]
    assert losses[0] == losses[1]


def test_noise_of_a_row_comes_from_its_own_generator() -> None:
    policy = tiny_policy()

    def noise(*seeds: int) -> torch.Tensor:
        return policy.make_noise(len(seeds), [torch.Generator().manual_seed(s) for s in seeds])

    assert noise(1, 2).shape == (2, 4, 7)
    assert noise(1, 2)[1].equal(noise(2, 5, 6)[0])
    with pytest.raises(ConfigError, match="1 generators for 2 rows"):
        policy.make_noise(2, [torch.Generator()])


def test_queue_hands_out_n_action_steps_of_a_chunk() -> None:
    policy, batch = tiny_policy(), tiny_batch((3,))
    noise = torch.randn(1, 4, 7)
    chunk = policy.predict_action_chunk(batch, noise=noise)
    own = [policy.select_action(batch, noise=noise) for _ in range(2)]
    assert torch.stack(own, dim=1).equal(chunk[:, :2])
    policy.select_action(batch, noise=noise)
    policy.reset()
    assert policy.select_action(batch, noise=noise).equal(chunk[:, 0])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"input_ids": None}, ProcessingError, "no 'input_ids'"),
        ({"action": torch.zeros(2, 3, 3)}, ProcessingError, "3 actions.*chunk_size=4"),
        ({"action": torch.zeros(2, 4, 8)}, ConfigError, "8 dimensions.*max_action_dim=7"),
        ({"observation.state": torch.zeros(2, 9)}, ConfigError, "9 dim.*max_state_dim=6"),
        ({"action_token_id": 47}, ProcessingError, r"\[0\] action tokens \(id 47\).*expected 4"),
        ({"state_token_id": 47}, ProcessingError, r"exactly one state token \(id 47\)"),
        (
            {"image_grid_thw": torch.tensor([(1, 4, 8), (1, 4, 4)])},
            ProcessingError,
            "8 image tokens.*make 12",
        ),
    ],
)
def test_batches_that_do_not_fit_are_refused(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tiny_policy()(tiny_batch() | change)


def test_actions_in_unequal_columns_are_refused() -> None:
    with pytest.raises(ProcessingError, match=r"start in columns \[10, 12\].*left"):
        tiny_policy().predict_action_chunk(tiny_batch(side="right"))


# Checkpoints


def test_saved_policy_loads_again(tmp_path: Path) -> None:
    policy = tiny_policy()
    policy.save_pretrained(tmp_path)
    loaded = EO1Policy.from_pretrained(tmp_path)
    assert _equal(policy, loaded)
    assert loaded.config == policy.config
    assert not loaded.training


def test_tied_pair_is_stored_once_and_named_in_the_metadata(tmp_path: Path) -> None:
    tiny_policy().save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as content:
        assert content.metadata()[EMBEDDING] == LM_HEAD
        stored = set(content.keys())
    assert LM_HEAD in stored
    assert EMBEDDING not in stored
    loaded = EO1Policy.from_pretrained(tmp_path)
    backbone = loaded.model.vlm_backbone
    assert backbone.lm_head.weight is backbone.model.language_model.embed_tokens.weight


@pytest.mark.parametrize("stored", [(EMBEDDING,), (EMBEDDING, LM_HEAD)])
def test_tied_pair_loads_under_either_name(tmp_path: Path, stored: tuple[str, ...]) -> None:
    policy = tiny_policy()
    policy.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    pair = tensors.pop(LM_HEAD)
    save_file(tensors | {k: pair.clone() for k in stored}, tmp_path / "model.safetensors")
    assert _equal(policy, EO1Policy.from_pretrained(tmp_path))


def test_unequal_tied_pair_is_refused(tmp_path: Path) -> None:
    tiny_policy().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors[EMBEDDING] = tensors[LM_HEAD] + 1
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="different values"):
        EO1Policy.from_pretrained(tmp_path)


def test_untied_embeddings_are_two_tensors(tmp_path: Path) -> None:
    policy = tiny_policy(vlm_config=VLM_CONFIG | {"tie_word_embeddings": False})
    policy.save_pretrained(tmp_path)
    assert {EMBEDDING, LM_HEAD} <= load_file(tmp_path / "model.safetensors").keys()
    assert _equal(policy, EO1Policy.from_pretrained(tmp_path))
    policy(tiny_batch())[0].backward()
    assert policy.model.vlm_backbone.lm_head.weight.grad is None


def test_overrides_win_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    tiny_policy().save_pretrained(tmp_path)
    policy = EO1Policy.from_pretrained(tmp_path, dtype="bfloat16", num_denoise_steps=1)
    assert policy.config.num_denoise_steps == 1
    assert policy.model.vlm_backbone.lm_head.weight.dtype == torch.bfloat16
    assert policy.model.state_proj.weight.dtype == torch.float32
    with pytest.raises(ConfigError, match=r"'num_denoise_step'.*Did you mean 'num_denoise_steps'"):
        EO1Policy.from_pretrained(tmp_path, num_denoise_step=1)
    with pytest.raises(ConfigError, match="dtype"):
        EO1Policy.from_pretrained(tmp_path, dtype="float8")


def test_auto_takes_the_stored_type_where_the_configuration_names_none(tmp_path: Path) -> None:
    config = {k: v for k, v in VLM_CONFIG.items() if k != "dtype"}
    tiny_policy(vlm_config=config, dtype="bfloat16").save_pretrained(tmp_path)
    loaded = EO1Policy.from_pretrained(tmp_path, dtype="auto")
    assert loaded.model.vlm_backbone.lm_head.weight.dtype == torch.bfloat16


def test_unavailable_device_is_refused(tmp_path: Path) -> None:
    tiny_policy().save_pretrained(tmp_path)
    with pytest.raises(DeviceError, match="'cuda:99' is not available"):
        EO1Policy.from_pretrained(tmp_path, device="cuda:99")


def test_flash_attention_without_its_package_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs the package flash_attn.*choose sdpa"):
        tiny_policy(attn_implementation="flash_attention_2")


def test_checkpoint_of_another_policy_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}))
    with pytest.raises(CheckpointError, match=r"describes a 'qwen2_5_vl'.*--policy.vlm_base"):
        EO1Policy.from_pretrained(tmp_path)


# Upstream checkpoints and backbones


def _upstream(folder: Path, policy: EO1Policy, *, prefix: str, ids: tuple[int, int]) -> None:
    """Write a policy as the EO-1 project does: its names, two shards, no lm_head."""
    state = {}
    for key, value in policy.state_dict().items():
        if key == LM_HEAD:
            continue
        name = key.removeprefix("model.")
        name = name.replace("vlm_backbone.model.language_model.", f"{prefix}model.")
        state[name.replace("vlm_backbone.model.visual.", f"{prefix}visual.")] = value.clone()
    names = sorted(state)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in shards.items():
        save_file({key: state[key] for key in keys}, folder / file)
    index = {"weight_map": {key: file for file, keys in shards.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = VLM_CONFIG | {
        "model_type": "eo1",
        "state_token_id": ids[0],
        "action_token_id": ids[1],
        "action_chunk_size": 4,
        "max_action_dim": 7,
        "num_denoise_steps": 3,
        "action_act": "linear",
        "num_action_layers": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokens = [
        {"content": "<|state_pad|>", "id": STATE_ID},
        {"content": "<|action_pad|>", "id": ACTION_ID},
    ]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))


@pytest.mark.parametrize("prefix", ["vlm_backbone.", ""])
def test_upstream_checkpoints_load(tmp_path: Path, prefix: str) -> None:
    policy = tiny_policy(max_state_dim=7)
    _upstream(tmp_path, policy, prefix=prefix, ids=(STATE_ID, ACTION_ID))
    loaded = EO1Policy.from_pretrained(tmp_path)
    assert _equal(policy, loaded)
    config = read_policy_config(tmp_path)
    assert isinstance(config, EO1Config)
    assert (config.chunk_size, config.max_action_dim, config.vlm_base) == (4, 7, str(tmp_path))
    loaded.save_pretrained(tmp_path / "ours")
    assert _equal(policy, EO1Policy.from_pretrained(tmp_path / "ours"))


def test_upstream_token_ids_must_agree_with_the_tokenizer(tmp_path: Path) -> None:
    _upstream(tmp_path, tiny_policy(max_state_dim=7), prefix="", ids=(STATE_ID + 1, ACTION_ID))
    with pytest.raises(CheckpointError, match=r"state_token_id=42.*the id 41"):
        EO1Policy.from_pretrained(tmp_path)


def test_batch_with_other_token_ids_than_upstream_s_is_refused(tmp_path: Path) -> None:
    _upstream(tmp_path, tiny_policy(max_state_dim=7), prefix="", ids=(STATE_ID, ACTION_ID))
    policy = EO1Policy.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"action_token_id=41.*trained with 42"):
        policy(tiny_batch() | {"action_token_id": 41})


def _qwen(folder: Path, policy: EO1Policy, *, old_names: bool) -> None:
    state = {k.removeprefix(BACKBONE): v for k, v in policy.state_dict().items() if BACKBONE in k}
    del state["lm_head.weight"]
    if old_names:
        state = {k.replace("model.language_model.", "model."): v for k, v in state.items()}
        state = {k.replace("model.visual.", "visual."): v for k, v in state.items()}
    save_file({k: v.clone() for k, v in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(VLM_CONFIG))


@pytest.mark.parametrize("old_names", [True, False])
def test_new_policy_takes_the_backbone_from_vlm_base(tmp_path: Path, old_names: bool) -> None:
    source = tiny_policy()
    _qwen(tmp_path, source, old_names=old_names)
    config = tiny_config(vlm_config=None, vlm_base=str(tmp_path))
    torch.manual_seed(1)
    policy = make_policy(config)
    torch.manual_seed(1)
    again = make_policy(config)
    assert _equal(policy, again)
    assert not policy.model.state_proj.weight.equal(source.model.state_proj.weight)
    for name, value in source.state_dict().items():
        if name.startswith(BACKBONE):
            assert value.equal(policy.state_dict()[name]), name
    assert isinstance(policy.config, EO1Config)
    assert policy.config.vlm_config == VLM_CONFIG


def test_vlm_base_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(VLM_CONFIG))
    with pytest.raises(CheckpointError, match="has no weights"):
        make_policy(tiny_config(vlm_config=None, vlm_base=str(tmp_path)))


def test_preset_starts_from_seeded_random_weights() -> None:
    config = tiny_config(vlm_config=None, vlm_base="tiny-qwen2.5-vl")
    torch.manual_seed(1)
    policy = make_policy(config)
    torch.manual_seed(1)
    assert _equal(policy, make_policy(config))
    assert not _equal(policy, make_policy(config))
    text = policy.model.vlm_backbone.model.language_model
    assert text.layers[0].mlp.up_proj.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not text.layers[0].self_attn.q_proj.bias.any()
    assert bool((text.norm.weight == 1).all())


def test_real_backbone_builds_without_memory() -> None:
    feature = PolicyFeature(FeatureType.ACTION, (7,))
    config = EO1Config(vlm_config=FLAT_3B, output_features={"action": feature})
    policy = EO1Policy(config, device="meta")
    names = policy.state_dict()
    assert len(names) == 837
    assert len(names.keys() - policy.tied_weights.keys()) == 836
    head = [p for n, p in policy.named_parameters() if not n.startswith(BACKBONE)]
    assert sum(p.numel() for p in head) == 16_984_096
    assert sum(p.numel() for p in policy.parameters()) == 3_771_607_072
    shapes = {name: tuple(value.shape) for name, value in names.items()}
    assert shapes[LM_HEAD] == (151936, 2048)
    assert shapes[f"{BACKBONE}model.visual.patch_embed.proj.weight"] == (1280, 3, 2, 14, 14)
    assert shapes[f"{BACKBONE}model.visual.merger.mlp.0.weight"] == (5120, 5120)
    assert names[LM_HEAD].dtype == torch.bfloat16


def test_sharded_policy_loads(tmp_path: Path) -> None:
    policy = tiny_policy()
    policy.config.save(tmp_path)
    save_state(policy, tmp_path, tied=policy.tied_weights, max_shard_bytes=20_000)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    assert _equal(policy, EO1Policy.from_pretrained(tmp_path))
