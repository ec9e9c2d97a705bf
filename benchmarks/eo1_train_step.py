# SPDX-License-Identifier: Apache-2.0
"""How long is one EO-1 training step of the demo's size, and how does it compare with transformers?

Forward and backward of one batch: 64 samples of 45 tokens with one 84x84 camera, the preset
`tiny-qwen2.5-vl`, random pixels. The reference runs Hugging Face's Qwen2.5-VL on the same tokens,
with the same replaced embeddings, the same loss at the action tokens and the same weights.
Both take turns, so that other load on the machine falls on both. The last line is JSON.

    python benchmarks/eo1_train_step.py [--threads 2] [--batch 64] [--repeats 10] [--profile]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vlakit.checkpoints.hub import resolve
from vlakit.checkpoints.pretrained import read_config
from vlakit.features import FeatureType, PolicyFeature
from vlakit.policies.eo1 import EO1Config, EO1Policy

STATE_ID, ACTION_ID, CHUNK, TEXT_TOKENS, GRID = 1330, 1331, 8, 27, (1, 6, 6)


def make_policy() -> EO1Policy:
    """Return the demo's policy with random weights."""
    torch.manual_seed(0)
    config = EO1Config(
        vlm_base="tiny-qwen2.5-vl",
        device="cpu",
        input_features={
            "observation.image": PolicyFeature(FeatureType.VISUAL, (3, 84, 84)),
            "observation.state": PolicyFeature(FeatureType.STATE, (8,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (4,))},
        chunk_size=CHUNK,
        n_action_steps=CHUNK,
    )
    return EO1Policy(config).train()


def make_batch(size: int, image_id: int) -> dict[str, Tensor | int]:
    """Return a processed batch: image, state token, text, actions, end of turn."""
    image_tokens = GRID[1] * GRID[2] // 4
    row = [7] * 8 + [image_id] * image_tokens + [STATE_ID] + [9] * (TEXT_TOKENS - 12)
    row += [ACTION_ID] * CHUNK + [5] * 4
    ids = torch.tensor([row] * size)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(size * GRID[1] * GRID[2], 1176),
        "image_grid_thw": torch.tensor([GRID] * size),
        "observation.state": torch.randn(size, 8),
        "action": torch.randn(size, CHUNK, 4),
        "state_token_id": STATE_ID,
        "action_token_id": ACTION_ID,
    }


def reference_loss(policy: EO1Policy) -> Callable[..., Tensor]:
    """Return the same loss with Hugging Face's backbone, on a copy of the weights."""
    import copy

    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    entries = read_config(resolve("tiny-qwen2.5-vl"))
    backbone = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**entries)).train()
    backbone.load_state_dict(policy.model.vlm_backbone.state_dict())
    backbone.set_attn_implementation("sdpa")
    head: nn.Module = copy.deepcopy(policy.model)
    head.vlm_backbone = None

    def loss(batch: dict[str, Tensor], noise: Tensor, t: Tensor) -> Tensor:
        ids = batch["input_ids"]
        embeddings = backbone.get_input_embeddings()(ids)
        images = backbone.model.get_image_features(
            batch["pixel_values"], batch["image_grid_thw"]
        ).pooler_output
        is_image = (ids == entries["image_token_id"])[..., None].expand_as(embeddings)
        embeddings = embeddings.masked_scatter(is_image, torch.cat(list(images)))
        state = nn.functional.pad(batch["observation.state"], (0, 24))
        is_state = (ids == STATE_ID)[..., None].expand_as(embeddings)
        embeddings = embeddings.masked_scatter(is_state, head.state_proj(state))
        action = nn.functional.pad(batch["action"], (0, 28))
        wide = t[:, None, None]
        suffix = head._embed_suffix(wide * noise + (1 - wide) * action, t)
        is_action = (ids == ACTION_ID)[..., None].expand_as(embeddings)
        embeddings = embeddings.masked_scatter(is_action, suffix)
        hidden = backbone.model(
            inputs_embeds=embeddings,
            attention_mask=batch["attention_mask"],
            position_ids=backbone.model.get_rope_index(
                ids,
                mm_token_type_ids=(ids == entries["image_token_id"]).int(),
                image_grid_thw=batch["image_grid_thw"],
                attention_mask=batch["attention_mask"],
            )[0],
            use_cache=False,
        ).last_hidden_state
        v_t = head.action_out_proj(hidden[ids == ACTION_ID].view_as(suffix))
        return (v_t - (noise - action)).square().mean()

    return loss


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--profile", action="store_true")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    policy = make_policy()
    batch = make_batch(flags.batch, policy.sizes.image_token_id)
    noise, t = torch.randn(flags.batch, CHUNK, 32), torch.rand(flags.batch)
    theirs = reference_loss(policy)
    calls: dict[str, Callable[[], Tensor]] = {
        "vlakit": lambda: policy(batch, noise=noise, time=t)[0],
        "transformers": lambda: theirs(batch, noise, t),
    }
    losses = {name: call().item() for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(flags.repeats + 2):
        for name, call in calls.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            call().backward()
            if repeat >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
                cpu[name].append(1e3 * (time.process_time() - start_cpu))
    if flags.profile:
        with torch.profiler.profile() as profile:
            calls["vlakit"]().backward()
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))
    medians = {f"{name}_ms": round(statistics.median(values), 1) for name, values in times.items()}
    cpu_ms = {f"{name}_cpu_ms": round(min(values), 1) for name, values in cpu.items()}
    ratio = medians["transformers_ms"] / medians["vlakit_ms"]
    report = {
        "case": "eo1 training step",
        "parameters": sum(p.numel() for p in policy.parameters()),
        "batch": flags.batch,
        "threads": flags.threads,
        **medians,
        **cpu_ms,
        "speedup": round(ratio, 2),
        "loss_difference": abs(losses["vlakit"] - losses["transformers"]),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
