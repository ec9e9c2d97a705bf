# SPDX-License-Identifier: Apache-2.0
"""EO-1's stages and sampled chunks against LeRobot 0.6.1, in the order of computation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.fixtures_root import cases
from tests.parity.eo1.recorded import RecordedCase, relative
from vlakit.policies.backbones.layers import take_columns
from vlakit.policies.eo1 import EO1Policy
from vlakit.policies.eo1.sampling import Sampler


@pytest.fixture(params=cases("eo1"))
def case(request: pytest.FixtureRequest) -> RecordedCase:
    return RecordedCase(request.param)


def _record(policy: EO1Policy, run: Callable[[], Any]) -> dict[str, Tensor]:
    """Run something and keep what the first call of each tower got and gave."""
    seen: dict[str, Tensor] = {}
    backbone = policy.model.vlm_backbone.model

    def keep_images(_: object, __: object, output: Tensor) -> None:
        seen.setdefault("image_embeds", output.detach())

    def keep_text(_: object, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen.setdefault("lm_position_ids", args[1])
        seen.setdefault("lm_last_hidden_state", output.detach())

    hooks = [
        backbone.visual.register_forward_hook(keep_images),
        backbone.language_model.register_forward_hook(keep_text),
    ]
    run()
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("stage", ["train", "infer_prefill"])
def test_towers_equal_lerobot(case: RecordedCase, stage: str) -> None:
    policy, noise, debug = case.policy(), case.noise, case.tensors("debug")
    expected = {k.removeprefix(f"{stage}."): v for k, v in debug.items() if k.startswith(stage)}
    if stage == "train":
        policy.train()
        batch = case.batch("train")
        seen = _record(
            policy, lambda: policy(batch, noise=noise["train_noise"], time=noise["train_time"])
        )
    else:
        batch = case.batch("infer")
        seen = _record(policy, lambda: policy.predict_action_chunk(batch, noise["infer_noise"]))
    tolerance = case.tolerance(float32=3e-6, bfloat16=3e-2)
    assert relative(seen["image_embeds"], expected["image_embeds"]) <= tolerance
    # The recordings' patch embedding is a convolution, which rounds 2.5 times as much as our matrix
    # product (both against float64); with a convolution in its place this would be 5e-7.
    tolerance = case.tolerance(float32=1e-5, bfloat16=3e-2)
    own, positions = seen["lm_last_hidden_state"], seen["lm_position_ids"]
    assert torch.equal(positions, expected["lm_position_ids"][:, :, : positions.shape[2]])
    hidden, is_real = expected["lm_last_hidden_state"], expected["lm_attention_mask"].bool()
    if stage == "train":  # only the actions' hidden states are computed
        columns = policy.model._action_columns(policy._inputs(batch))
        hidden, is_real = take_columns(hidden, columns), is_real.gather(1, columns)
    assert relative(own[is_real], hidden[is_real]) <= tolerance


@pytest.mark.parametrize("engine", ["plain", "static"])
def test_chunks_equal_lerobot_for_every_number_of_steps(case: RecordedCase, engine: str) -> None:
    expected = case.tensors("infer_expected")
    tolerance = case.tolerance(float32=1e-5, bfloat16=2e-2)
    for steps in case.note["infer"]["denoise_steps"]:
        policy = case.policy(num_denoise_steps=steps, engine=engine)
        batch = case.batch("infer")
        chunk = policy.predict_action_chunk(batch, noise=case.noise["infer_noise"])
        assert chunk.dtype == torch.float32
        assert relative(chunk, expected[f"chunk_steps{steps}"]) <= tolerance
        padded = Sampler(policy.model).sample(
            policy._inputs(batch), case.noise["infer_noise"], num_steps=steps
        )
        assert relative(padded, expected[f"chunk_steps{steps}_full_padded"]) <= tolerance


def test_selected_actions_equal_lerobot(case: RecordedCase) -> None:
    policy, batch = case.policy(), case.batch("infer")
    actions = [
        policy.select_action(batch, noise=case.noise["infer_noise"])
        for _ in range(policy.config.n_action_steps)
    ]
    expected = case.tensors("infer_expected")["select_action_sequence"]
    assert relative(torch.stack(actions), expected) <= case.tolerance(1e-5, 2e-2)
    assert len(policy._queue) == case.note["infer"]["queue_len_after_sequence"]


def test_cached_denoising_equals_full_forward_passes(case: RecordedCase) -> None:
    policy, batch = case.policy(), case.batch("infer")
    model, inputs = policy.model, policy._inputs(batch)
    columns = model._action_columns(inputs)

    def velocity(x_t: Tensor, time: Tensor) -> Tensor:
        return model.velocity(inputs, x_t, time, columns, inputs.attention_mask)

    x_t, steps = case.noise["infer_noise"], 3
    cached = Sampler(model).sample(inputs, x_t, steps)
    with torch.no_grad():
        for step in range(steps):
            x_t = x_t - velocity(x_t, torch.full(x_t.shape[:1], 1 - step / steps)) / steps
    assert relative(cached, x_t) <= case.tolerance(float32=2e-6, bfloat16=2e-2)


def test_configuration_round_trips_to_the_same_json(case: RecordedCase) -> None:
    import json

    text = (case.checkpoint / "config.json").read_text(encoding="utf-8")
    own = json.dumps(case.policy().config.to_json(), indent=4, ensure_ascii=False)
    assert own == text
