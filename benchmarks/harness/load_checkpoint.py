# SPDX-License-Identifier: Apache-2.0
"""Load a checkpoint once, in a process of its own, and print time and memory as JSON.

    PYTHON load_checkpoint.py vlakit|lerobot CHECKPOINT

Imports are done before the clock starts. The sum of all weights shows that they arrived.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from pathlib import Path

import torch

KIB = 1024


def peak_mb() -> float:
    """Return the largest resident memory so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * KIB / 1e6


def load_ours(folder: Path) -> torch.nn.Module:
    from vlakit.policies.eo1 import EO1Policy

    return EO1Policy.from_pretrained(folder)


def load_reference(folder: Path) -> torch.nn.Module:
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.policies.eo1.modeling_eo1 import EO1Policy

    config = PreTrainedConfig.from_pretrained(folder)
    config.pretrained_path = folder  # as its command line does
    return EO1Policy.from_pretrained(folder, config=config)


IMPORTS = {
    "vlakit": ["vlakit.policies.eo1.policy"],
    "lerobot": [
        "lerobot.policies.eo1.modeling_eo1",
        "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    ],
}


def main() -> None:
    side, folder = sys.argv[1], Path(sys.argv[2])
    for module in IMPORTS[side]:
        importlib.import_module(module)
    before_mb = peak_mb()
    start = time.perf_counter()
    policy = load_ours(folder) if side == "vlakit" else load_reference(folder)
    elapsed_ms = 1e3 * (time.perf_counter() - start)
    loaded_mb = peak_mb()
    weights = dict(policy.named_parameters())
    print(
        json.dumps(
            {
                "ms": elapsed_ms,
                "peak_mb": loaded_mb,
                "peak_above_imports_mb": loaded_mb - before_mb,
                "parameters": sum(value.numel() for value in weights.values()),
                "weights_mb": sum(v.numel() * v.element_size() for v in weights.values()) / 1e6,
                "sum": sum(value.double().sum().item() for value in weights.values()),
            }
        )
    )


if __name__ == "__main__":
    main()
