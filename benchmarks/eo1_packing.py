# SPDX-License-Identifier: Apache-2.0
"""What does packing (--policy.pack_sequences) gain in an EO-1 training step?

Loss and gradients of one preprocessed batch, packed against unpacked, with a text model of width
512 and 12 layers and a vision tower of width 384 and 8 layers (random weights): instructions of
one length, of slightly and of very different lengths, and one to three cameras. The losses agree.

    python benchmarks/eo1_packing.py [--threads 1] [--repeats 5] [--batch 8] [--tiny]

Prints one JSON line per case; `padding` is the share of tokens that packing leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from harness.timing import make_parser, report, take_turns, timed
from harness.workload import ACTION, ACTION_DIM, CHUNK, PRESET, STATE, STATE_DIM

from vlakit.checkpoints.pretrained import read_config
from vlakit.features import FeatureType, PolicyFeature
from vlakit.hub import resolve
from vlakit.policies.eo1 import EO1Config, EO1Policy
from vlakit.policies.eo1.processor import make_processors

SIDE = 252
"""Pixels: 81 tokens per camera."""
WORDS = ("push", "the", "green", "button", "twice", "and", "open", "the", "drawer")
LENGTHS = {
    "equal": (8,) * 8,
    "similar": (5, 6, 7, 8, 9, 10, 12, 15),
    "ragged": (4, 5, 6, 8, 12, 20, 40, 80),
    "one long": (6, 6, 6, 6, 6, 6, 6, 80),
}
"""Words per instruction."""
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Case:
    """Instructions and cameras of a batch."""

    lengths: str
    cameras: int

    @property
    def camera_keys(self) -> list[str]:
        return [f"observation.images.cam{number}" for number in range(self.cameras)]


CASES = (
    Case("equal", 2),
    Case("similar", 2),
    Case("one long", 2),
    Case("ragged", 1),
    Case("ragged", 2),
    Case("ragged", 3),
)


class Session:
    """A policy, which packs or not, and a preprocessed batch."""

    def __init__(self, case: Case, batch_size: int, *, tiny: bool, packed: bool) -> None:
        torch.manual_seed(0)
        config = _config(case, tiny=tiny, packed=packed)
        self.policy = EO1Policy(config).train()
        stats = {
            STATE: {"mean": [0.1] * STATE_DIM, "std": [0.9] * STATE_DIM},
            ACTION: {"mean": [0.0] * ACTION_DIM, "std": [1.1] * ACTION_DIM},
        }
        preprocess, _ = make_processors(config, stats)
        self.batch = preprocess(_raw_batch(case, batch_size))

    def step(self) -> float:
        torch.manual_seed(1)
        self.policy.zero_grad()
        loss, _ = self.policy(self.batch)
        loss.backward()
        return loss.item()

    def tokens(self) -> list[int]:
        """Return the tokens of each sample up to its last action."""
        # One token ends the actions, two end the turn.
        return [int(count) - 3 for count in self.batch["attention_mask"].sum(1)]


def _config(case: Case, *, tiny: bool, packed: bool) -> EO1Config:
    backbone = read_config(resolve(PRESET))
    if not tiny:
        backbone["text_config"] |= {
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 12,
            "layer_types": ["full_attention"] * 12,
            "num_attention_heads": 8,
            "rope_parameters": {"mrope_section": [8, 12, 12], "rope_theta": 1e6},
        }
        backbone["vision_config"] |= {
            "depth": 8,
            "hidden_size": 384,
            "intermediate_size": 1024,
            "num_heads": 6,
            "fullatt_block_indexes": [3, 7],
            "out_hidden_size": 512,
        }
    camera = PolicyFeature(FeatureType.VISUAL, (3, SIDE, SIDE))
    return EO1Config(
        vlm_base=PRESET,
        vlm_config=backbone,
        device="cpu",
        input_features=dict.fromkeys(case.camera_keys, camera)
        | {STATE: PolicyFeature(FeatureType.STATE, (STATE_DIM,))},
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (ACTION_DIM,))},
        chunk_size=CHUNK,
        n_action_steps=CHUNK,
        pack_sequences=packed,
    )


def _raw_batch(case: Case, size: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    shape = (size, 3, SIDE, SIDE)
    lengths = LENGTHS[case.lengths]
    images = {
        name: torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        for name in case.camera_keys
    }
    return images | {
        STATE: torch.randn(size, STATE_DIM, generator=generator),
        ACTION: torch.randn(size, CHUNK, ACTION_DIM, generator=generator),
        "task": [_instruction(lengths[row % len(lengths)]) for row in range(size)],
    }


def _instruction(length: int) -> str:
    return " ".join(WORDS[index % len(WORDS)] for index in range(length))


def measure(case: Case, flags: Any) -> None:
    packed, unpacked = (
        Session(case, flags.batch, tiny=flags.tiny, packed=choice) for choice in (True, False)
    )
    ours, expected = packed.step(), unpacked.step()
    difference = abs(ours - expected) / expected
    assert difference < TOLERANCE, f"the losses differ by {difference}"
    sides = {"packed": timed(packed.step), "unpacked": timed(unpacked.step)}
    times = take_turns(sides, repeats=flags.repeats)
    tokens = packed.tokens()
    medians = {name: torch.tensor(values).median().item() for name, values in times.items()}
    report(
        f"eo1 loss and gradients, {case.lengths} instructions, cameras: {case.cameras}",
        times,
        gain=round(medians["unpacked"] / medians["packed"], 3),
        padding=round(1 - sum(tokens) / (len(tokens) * max(tokens)), 3),
        tokens=[min(tokens), max(tokens)],
        batch=flags.batch,
        difference=difference,
    )


def main() -> None:
    parser = make_parser(__doc__, repeats=5, other_process=False)
    parser.add_argument("--batch", type=int, default=8, help="samples per batch")
    parser.add_argument("--tiny", action="store_true", help="the preset's sizes: a quick look")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    for case in CASES:
        measure(case, flags)


if __name__ == "__main__":
    main()
