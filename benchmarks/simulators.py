# SPDX-License-Identifier: Apache-2.0
"""How long does a simulator take: to build a task, to begin an episode, to move, to be looked at?

One line for each simulator that is installed, on one core, at the sizes that LeRobot has: `step`
moves and draws nothing, `look` draws all cameras, `fast_look` draws them with
--env.fast_render=true (Meta-World: no shadow, no multi-sampling; LIBERO: no multi-sampling).

    LIBERO_ASSETS=DIR python benchmarks/simulators.py [--repeats 30]
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
from harness.timing import make_parser, report, take_turns, timed

from vlakit.environments.base import EnvConfig, Environment
from vlakit.environments.config import LiberoEnvConfig, MetaworldEnvConfig, PushTEnvConfig
from vlakit.errors import SimulatorError
from vlakit.features import ACTION

CASES: dict[str, EnvConfig] = {
    "libero_object 0": LiberoEnvConfig(task="libero_object", task_ids=(0,)),
    "libero_goal 7": LiberoEnvConfig(task="libero_goal", task_ids=(7,)),
    "libero_10 2": LiberoEnvConfig(task="libero_10", task_ids=(2,)),
    "metaworld drawer-open": MetaworldEnvConfig(task="drawer-open-v3", fast_render=False),
    "pusht": PushTEnvConfig(),
}
SEED = 1000


def measure(name: str, config: EnvConfig, repeats: int) -> None:
    """Print the line of one simulator."""
    task = config.task_list()[0].name
    made: list[Environment] = []
    build = take_turns({"build": timed(lambda: made.append(config.make(task)))}, repeats=1)
    env = made.pop()
    for other in made:
        other.close()
    reset = take_turns({"reset": timed(lambda: env.reset(SEED))}, repeats=3)
    action = np.zeros(config.features()[ACTION]["shape"], np.float32)

    sides = {"step": timed(lambda: env.step(action)), "look": timed(env.observe)}
    fast = env
    if isinstance(config, LiberoEnvConfig | MetaworldEnvConfig):
        fast = replace(config, fast_render=True).make(task)
        fast.reset(SEED)
        sides["fast_step"] = timed(lambda: fast.step(action))  # or its last pictures are shown
        sides["fast_look"] = timed(fast.observe)
    times = take_turns(sides, repeats=repeats, warmup=2)
    times.pop("fast_step", None)
    report(name, times | build | reset)
    for used in {id(env): env, id(fast): fast}.values():
        used.close()


def main() -> None:
    arguments = make_parser(__doc__, repeats=30, other_process=False).parse_args()
    for name, config in CASES.items():
        try:
            config.check_machine()
        except SimulatorError as error:
            print(json.dumps({"case": name, "not measured": str(error)}))
            continue
        measure(name, config, arguments.repeats)


if __name__ == "__main__":
    main()
