# SPDX-License-Identifier: Apache-2.0
"""Prove that LeRobot's own reader accepts what `LeRobotDatasetWriter` writes.

    python tools/check_with_lerobot.py                 # makes a Python 3.12 environment first
    python tools/check_with_lerobot.py --python PATH   # an interpreter that has lerobot==0.6.1

Writes a small dataset (an mp4 camera, a PNG camera, numbers of several shapes, two tasks, several
files), stores our own reader's items beside it, then lets LeRobot read the folder in its own
environment and compares every item, tensor by tensor. Not part of `make test`: LeRobot needs 6 GB.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LEROBOT = "lerobot[training]==0.6.1"
FPS = 10
EPISODES = ((12, "pick the cube"), (7, "in die Schüssel legen"), (15, "pick the cube"), (20, "x"))
DELTAS = {
    "action": [0.0, 0.1, 0.2, 0.3],
    "observation.state": [-0.1, 0.0],
    "observation.images.top": [-0.2, 0.0],
    "observation.images.wrist": [0.0, 0.1],
}

# Runs in LeRobot's environment: reads the folder, compares with our items, prints a summary.
READER = """
import json, sys
import torch, lerobot
from safetensors.torch import load_file
from lerobot.datasets.lerobot_dataset import LeRobotDataset
root, plan = sys.argv[1], json.loads(sys.argv[2])
worst, compared = 0.0, 0
for name, query in plan.items():
    expected = load_file(f"{root}.expected/{name}.safetensors")
    texts = json.load(open(f"{root}.expected/{name}.json"))
    dataset = LeRobotDataset("vlakit/check", root=root, episodes=query["episodes"],
                             delta_timestamps=query["deltas"], video_backend="pyav")
    assert len(dataset) == len(texts), (len(dataset), len(texts))
    for index in range(len(dataset)):
        item = dataset[index]
        start = f"{index}:"
        ours = {k.removeprefix(start): v for k, v in expected.items() if k.startswith(start)}
        assert set(item) == set(ours) | set(texts[index]), (sorted(item), sorted(ours))
        for key, value in item.items():
            if isinstance(value, str):
                assert value == texts[index][key], (key, value)
                continue
            assert value.shape == ours[key].shape and value.dtype == ours[key].dtype, (
                key, value.shape, value.dtype, ours[key].shape, ours[key].dtype)
            difference = (value.double() - ours[key].double()).abs().max().item()
            worst = max(worst, difference)
            limit = 8 / 255 if key in dataset.meta.video_keys else 0.0
            assert difference <= limit, (name, index, key, difference)
        compared += 1
stats = dataset.meta.stats
assert set(stats) >= {"action", "observation.state", "observation.images.top"}, sorted(stats)
print(json.dumps({"lerobot": lerobot.__version__, "items": compared,
                  "largest_difference": worst, "tasks": list(dataset.meta.tasks.index),
                  "episodes": dataset.meta.total_episodes}))
"""


def write(root: Path, vcodec: str) -> None:
    import numpy as np

    from vlakit.datasets import LeRobotDatasetWriter

    features = {
        "observation.state": {"dtype": "float32", "shape": (5,), "names": list("abcde")},
        "action": {"dtype": "float32", "shape": (3,)},
        "observation.images.top": {"dtype": "video", "shape": (64, 96, 3)},
        "observation.images.wrist": {"dtype": "image", "shape": (32, 40, 3)},
        "next.reward": {"dtype": "float32", "shape": (1,)},
        "next.done": {"dtype": "bool", "shape": (1,)},
        "grid": {"dtype": "float32", "shape": (2, 3)},
        "note": {"dtype": "string", "shape": (1,)},
    }
    random = np.random.default_rng(0)
    with LeRobotDatasetWriter.create(
        "vlakit/check",
        FPS,
        features,
        root=root,
        robot_type="toy",
        vcodec=vcodec,
        data_files_size_in_mb=0.02,
        video_files_size_in_mb=0.01,
    ) as writer:
        for number, (length, task) in enumerate(EPISODES):
            for step in range(length):
                writer.add_frame(
                    {
                        "observation.state": random.normal(size=5).astype(np.float32),
                        "action": random.normal(size=3).astype(np.float32),
                        "observation.images.top": picture(step + 20 * number, 64, 96),
                        "observation.images.wrist": picture(step + 30 * number, 32, 40),
                        "next.reward": float(step),
                        "next.done": step == length - 1,
                        "grid": random.normal(size=(2, 3)).astype(np.float32),
                        "note": f"step {step}",
                        "task": task if task != "x" else EPISODES[step % 2][1],
                    }
                )
            writer.save_episode()


def picture(step: int, height: int, width: int):
    import numpy as np

    y, x = np.mgrid[:height, :width]
    return np.stack([2 * x + 3 * step, 2 * y + step, x + y], axis=-1).astype(np.uint8)


def record_items(root: Path, plan: dict[str, dict]) -> None:
    from safetensors.torch import save_file

    from vlakit.datasets import LeRobotDataset

    folder = root.with_name(root.name + ".expected")
    folder.mkdir()
    for name, query in plan.items():
        dataset = LeRobotDataset(
            "vlakit/check", root, query["episodes"], delta_timestamps=query["deltas"]
        )
        tensors, texts = {}, []
        for index in range(len(dataset)):
            item = dataset[index]
            texts.append({key: value for key, value in item.items() if isinstance(value, str)})
            for key, value in item.items():
                if not isinstance(value, str):
                    tensors[f"{index}:{key}"] = value.clone().contiguous()
        save_file(tensors, folder / f"{name}.safetensors")
        (folder / f"{name}.json").write_text(json.dumps(texts), encoding="utf-8")


def lerobot_python(folder: Path) -> Path:
    python312 = shutil.which("python3.12")
    if python312 is None:
        sys.exit("python3.12 is not on PATH: install it, or give --python one that has lerobot")
    subprocess.run([python312, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "-q", LEROBOT], check=True)
    return folder / "bin" / "python"


def main() -> None:
    parser = argparse.ArgumentParser(description="let LeRobot read what vlakit writes")
    parser.add_argument("--python", type=Path, help="interpreter with lerobot==0.6.1")
    parser.add_argument("--vcodec", nargs="*", default=["libsvtav1", "h264"])
    arguments = parser.parse_args()
    plan = {
        "plain": {"episodes": None, "deltas": None},
        "windows": {"episodes": None, "deltas": DELTAS},
        "subset": {"episodes": [1, 3], "deltas": {"action": DELTAS["action"]}},
    }
    with tempfile.TemporaryDirectory() as temporary:
        python = arguments.python or lerobot_python(Path(temporary) / "lerobot")
        for vcodec in arguments.vcodec:
            root = Path(temporary) / f"dataset_{vcodec}"
            write(root, vcodec)
            record_items(root, plan)
            command = [str(python), "-c", READER, str(root), json.dumps(plan)]
            answer = subprocess.run(command, check=False, capture_output=True, text=True)
            if answer.returncode:
                sys.exit(f"{vcodec}: LeRobot does not agree:\n{answer.stderr[-3000:]}")
            print(vcodec, answer.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
