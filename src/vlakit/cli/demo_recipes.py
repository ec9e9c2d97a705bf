# SPDX-License-Identifier: Apache-2.0
"""How each policy of the demo is trained: the flags that make a small one work.

What decides, more than the size of the network: the workspace fills the picture, the recording is
noisy while the recorded action is clean (so the policy learns to recover), pictures are shifted and
brightened, and a step is cheap (9 image tokens, some 40 tokens in all), so that there are many.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from vlakit.cli.demo_flags import DemoFlags

IMAGE_SIZE = 84
"""Side of the camera picture in pixels: 3 x 3 image tokens of 28, and no resizing."""
_HORIZON = 8
_BRIGHTNESS = {"type": "ColorJitter", "kwargs": {"brightness": [0.8, 1.2]}}
_SHIFT = {
    "type": "RandomAffine",
    "kwargs": {"translate": [0.05, 0.05], "degrees": 0, "fill": "edge"},
}


def fit_tokenizer(flags: DemoFlags) -> list[str]:
    """Return the command that fits pi0-FAST's action tokenizer to the demonstrations.

    A coarse scale and a small vocabulary: fewer, more frequent tokens are learnt sooner. The error
    they cause is far below what these tasks notice.
    """
    return [
        "train-tokenizer",
        "--repo_id=local/demo",
        f"--root={flags.dataset}",
        f"--action_horizon={_HORIZON}",
        "--encoded_dims=0:4",
        "--vocab_size=272",
        "--scale=3",
        "--normalization_mode=QUANTILES",
        "--sample_fraction=1.0",
        f"--output_dir={flags.fast_tokenizer}",
    ]


def train(flags: DemoFlags, policy: str) -> list[str]:
    """Return the command that trains a policy on the demonstrations."""
    steps = flags.steps or _STEPS[policy]
    return [
        "train",
        "--dataset.repo_id=local/demo",
        f"--dataset.root={flags.dataset}",
        "--dataset.cache_frames=true",
        "--dataset.image_transforms.enable=true",
        "--dataset.image_transforms.max_num_transforms=2",
        "--dataset.image_transforms.tfs="
        + json.dumps({"brightness": _BRIGHTNESS, "shift": _SHIFT}),
        f"--policy.type={policy}",
        *_POLICY_FLAGS[policy](flags),
        "--policy.dtype=float32",
        f"--policy.device={flags.device}",
        "--policy.optimizer_lr=1e-3",
        "--policy.optimizer_weight_decay=0.01",
        "--policy.scheduler_warmup_steps=50",
        f"--policy.scheduler_decay_steps={steps}",
        "--policy.push_to_hub=false",
        "--ema.enable=true",
        "--ema.decay=0.99",
        f"--steps={steps}",
        f"--batch_size={flags.batch_size}",
        "--num_workers=0",
        "--log_freq=20",
        "--save_freq=0",
        f"--seed={flags.seed}",
        f"--output_dir={flags.folder(policy) / 'train'}",
    ]


def _eo1(flags: DemoFlags) -> list[str]:
    scaling = {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "QUANTILES"}
    return [
        "--policy.vlm_base=tiny-qwen2.5-vl",
        f"--policy.image_min_pixels={IMAGE_SIZE * IMAGE_SIZE}",
        f"--policy.image_max_pixels={IMAGE_SIZE * IMAGE_SIZE}",
        "--policy.max_state_dim=4",
        "--policy.max_action_dim=4",
        f"--policy.normalization_mapping={json.dumps(scaling)}",
    ]


def _pi0_fast(flags: DemoFlags) -> list[str]:
    # The state becomes one of 256 words per dimension, counted over [-1, 1].
    scaling = {"VISUAL": "IDENTITY", "STATE": "MIN_MAX", "ACTION": "QUANTILES"}
    return [
        "--policy.paligemma_variant=tiny",
        f"--policy.action_tokenizer_name={flags.fast_tokenizer}",
        f"--policy.chunk_size={_HORIZON}",
        f"--policy.n_action_steps={_HORIZON}",
        f"--policy.normalization_mapping={json.dumps(scaling)}",
    ]


_POLICY_FLAGS: dict[str, Callable[[DemoFlags], list[str]]] = {"eo1": _eo1, "pi0_fast": _pi0_fast}
_STEPS = {"eo1": 1500, "pi0_fast": 2000}
