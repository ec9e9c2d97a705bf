# SPDX-License-Identifier: Apache-2.0
"""Record what LeRobot's LIBERO shows a policy, for tests/parity/libero. Runs where LeRobot is.

Usage: python tools/record_libero_reference.py ASSETS OUTPUT.npz
in an environment with lerobot 0.6.1, hf-libero 0.1.4 and mujoco 3.3.0, with MUJOCO_GL=egl (Mesa).
"""

from __future__ import annotations

import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

CASES = (
    ("libero_object", 0, "relative", 0),
    ("libero_goal", 7, "relative", 3),
    ("libero_10", 5, "relative", 1),
    ("libero_object", 7, "absolute", 2),
)
"""Suite, task, control mode, episode. None begins with a drawer or stove set open or on."""
SIZE = 32
SEED = 1000
STEPS = 24
LOOK_EVERY = 8


def prepare(assets: Path) -> None:
    """Answer the questions of LIBERO's first import."""
    package = Path(next(iter(find_spec("libero").submodule_search_locations))) / "libero"
    folder = Path(tempfile.mkdtemp())
    lines = f"bddl_files: {package / 'bddl_files'}\ninit_states: {package / 'init_files'}\n"
    (folder / "config.yaml").write_text(lines)
    os.environ["LIBERO_CONFIG_PATH"] = str(folder)
    import libero.libero as libero

    libero._assets_path_cache = str(assets)


def record(suite: str, task: int, mode: str, episode: int) -> dict[str, np.ndarray]:
    """Return what is seen in one episode of actions drawn from the episode's number."""
    import torch
    from lerobot.envs.libero import LiberoEnv, _get_suite
    from lerobot.processor.env_processor import LiberoProcessorStep

    env = LiberoEnv(
        _get_suite(suite),
        task,
        suite,
        obs_type="pixels_agent_pos",
        observation_height=SIZE,
        observation_width=SIZE,
        control_mode=mode,
        episode_index=episode,
    )
    observation, _ = env.reset(seed=SEED + episode)

    def tensor(value: Any) -> Any:
        return torch.from_numpy(np.ascontiguousarray(value))[None]

    def look() -> dict[str, np.ndarray]:
        parts = observation["robot_state"].items()
        raw: dict[str, Any] = {
            "observation.robot_state": {
                name: {key: tensor(value) for key, value in part.items()} for name, part in parts
            }
        }
        for name, picture in observation["pixels"].items():
            raw[f"observation.images.{name}"] = tensor(picture).permute(0, 3, 1, 2)
        seen = LiberoProcessorStep().observation(raw)
        return {
            name: (value[0].permute(1, 2, 0) if value.ndim == 4 else value[0]).numpy()
            for name, value in seen.items()
        }

    actions = np.random.default_rng(episode).uniform(-1, 1, (STEPS, 7)).astype(np.float32)
    if mode == "absolute":  # poses near the one at the start, gripper down
        actions[:, :3] = look()["observation.state"][:3] + 0.1 * actions[:, :3]
        actions[:, 3:6] = [3.14, 0.0, 0.0] + 0.2 * actions[:, 3:6]
    seen = [look()]
    for number, action in enumerate(actions, start=1):
        observation = env.step(action)[0]
        if number % LOOK_EVERY == 0:
            seen.append(look())
    env.close()
    return {"actions": actions} | {name: np.stack([s[name] for s in seen]) for name in seen[0]}


def main() -> None:
    assets, output = Path(sys.argv[1]), Path(sys.argv[2])
    prepare(assets)
    arrays = {}
    for suite, task, mode, episode in CASES:
        for name, values in record(suite, task, mode, episode).items():
            arrays[f"{suite}/{task}/{mode}/{episode}/{name}"] = values
    np.savez_compressed(output, **arrays)
    print(f"{output}: {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
