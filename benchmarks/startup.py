# SPDX-License-Identifier: Apache-2.0
"""How long until a command answers, compared with LeRobot's?

Whole processes, files already in the page cache: the help of the training command, the import of
the policies' classes, and a training run of one step of 8 samples of a video dataset with EO-1 on
the preset `tiny-qwen2.5-vl`, without saving: imports, dataset, model, first step. LeRobot's command
cannot train a small pi0-FAST: its smallest variant that runs is gemma_2b, and its tokenizers have
to be downloaded. The import of torch alone, which both need, is the floor of all but the help.

    python benchmarks/startup.py [--reference-python PYTHON] [--threads 1]

Prints one JSON line per question.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from harness.reference_process import environment
from harness.timing import OURS, REFERENCE, Side, make_parser, report, take_turns, timed

from vlakit.datasets import LeRobotDatasetWriter
from vlakit.hub import resolve

IMPORTS = {
    "EO-1": {
        OURS: "from vlakit.policies.eo1 import EO1Policy",
        REFERENCE: "from lerobot.policies.eo1.modeling_eo1 import EO1Policy",
    },
    "pi0-FAST": {
        OURS: "from vlakit.policies.pi0_fast import PI0FastPolicy",
        REFERENCE: "from lerobot.policies.pi0_fast.modeling_pi0_fast import PI0FastPolicy",
    },
}
TRAIN = {OURS: ["-m", "vlakit.cli", "train"], REFERENCE: ["-m", "lerobot.scripts.lerobot_train"]}


def write_dataset(root: Path) -> None:
    """Write two episodes of ten frames."""
    features = {
        "observation.images.cam": {"dtype": "video", "shape": (84, 84, 3)},
        "observation.state": {"dtype": "float32", "shape": (4,)},
        "action": {"dtype": "float32", "shape": (4,)},
    }
    random = np.random.default_rng(0)
    with LeRobotDatasetWriter.create("bench/tiny", 10, features, root, vcodec="h264") as writer:
        for _ in range(2):
            for _ in range(10):
                frame = {
                    "observation.images.cam": random.integers(0, 256, (84, 84, 3), dtype=np.uint8),
                    "observation.state": random.normal(size=4).astype(np.float32),
                    "action": random.normal(size=4).astype(np.float32),
                }
                writer.add_frame(frame | {"task": "open the drawer"})
            writer.save_episode()


def backbone(folder: Path) -> Path:
    """Write the preset as a backbone with weights, which the reference needs to start from."""
    from safetensors.torch import save_file

    from vlakit.checkpoints.pretrained import read_config
    from vlakit.policies.backbones.qwen2_5_vl import Qwen25VL
    from vlakit.policies.backbones.qwen2_5_vl_config import Qwen25VLSizes

    shutil.copytree(resolve("tiny-qwen2.5-vl"), folder)
    model = Qwen25VL(Qwen25VLSizes.from_json(read_config(folder)), "sdpa")
    model.init_weights()
    tensors = dict(model.named_parameters())
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def one_step(folder: Path) -> list[str]:
    """Return the flags of a run of one step, the same for both commands."""
    return [
        "--dataset.repo_id=bench/tiny",
        f"--dataset.root={folder / 'dataset'}",
        "--policy.type=eo1",
        f"--policy.vlm_base={backbone(folder / 'backbone')}",
        "--policy.dtype=float32",
        "--policy.device=cpu",
        "--policy.push_to_hub=false",
        f"--policy.image_min_pixels={84 * 84}",
        "--steps=1",
        "--batch_size=8",
        "--num_workers=0",
        "--log_freq=1",
        "--save_checkpoint=false",
        "--wandb.enable=false",
    ]


class Processes:
    """Runs commands of both sides to their end."""

    def __init__(self, pythons: dict[str, str], folder: Path, threads: int) -> None:
        self.pythons, self.folder, self.threads, self.runs = pythons, folder, threads, 0

    def sides(
        self, arguments: dict[str, Sequence[str]], *, writes: bool = False
    ) -> dict[str, Side]:
        """Return what runs each side's Python with its arguments.

        Args:
            arguments: by side.
            writes: the command takes an --output_dir, which must be a new one every time.
        """
        return {
            side: timed(lambda side=side: self._run(side, arguments[side], writes))
            for side in self.pythons
        }

    def _run(self, side: str, arguments: Sequence[str], writes: bool) -> None:
        self.runs += 1
        output = [f"--output_dir={self.folder / str(self.runs)}"] if writes else []
        # Ours is found the way this process finds it, the reference without our path.
        paths = {"PYTHONPATH": ":".join(sys.path)} if side == OURS else {}
        command = [self.pythons[side], *arguments, *output]
        done = subprocess.run(
            command,
            env=environment(self.threads) | paths,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")


def main() -> None:
    flags = make_parser(__doc__, repeats=3).parse_args()
    torch.set_num_threads(flags.threads)
    pythons = {OURS: sys.executable}
    if flags.reference_python is not None:
        pythons[REFERENCE] = flags.reference_python
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder / "dataset")
        processes = Processes(pythons, folder, flags.threads)
        step = one_step(folder)
        cases: dict[str, dict[str, Side]] = {
            "help of the training command": processes.sides(
                {side: [*command, "--help"] for side, command in TRAIN.items()}
            ),
            "import torch": processes.sides(dict.fromkeys(TRAIN, ("-c", "import torch"))),
            **{
                f"import the {policy} policy": processes.sides(
                    {side: ("-c", line) for side, line in lines.items()}
                )
                for policy, lines in IMPORTS.items()
            },
            "training run of one step": processes.sides(
                {side: [*command, *step] for side, command in TRAIN.items()}, writes=True
            ),
        }
        for case, sides in cases.items():
            report(case, take_turns(sides, repeats=flags.repeats))


if __name__ == "__main__":
    main()
