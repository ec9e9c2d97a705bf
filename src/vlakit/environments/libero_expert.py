# SPDX-License-Identifier: Apache-2.0
"""Scripted experts for ten tasks of LIBERO, which look at the true places of things.

Nine tasks of libero_object (all but the cream cheese, whose neighbours the hand touches) and the
stove of libero_goal. They show that an environment is wired right and give demonstrations; they
are no measure of anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vlakit.environments.libero_tasks import SUITES

STOVE = "turn_on_the_stove"
CREAM_CHEESE = "pick_up_the_cream_cheese_and_place_it_in_the_basket"
EXPERT_TASKS = frozenset(SUITES["libero_object"]) - {CREAM_CHEESE} | {STOVE}
REACH = 0.05
"""Metres that an action of 1 asks for. Source: robosuite, controllers/config/osc_pose.json."""
OPEN, CLOSED = -1.0, 1.0
NEAR = 0.008
CARRY_HEIGHT = 0.32
"""Above the basket's rim with a bottle in the hand (m)."""
DROP_HEIGHT = 0.23
FINGER_LENGTH = 0.04
"""How deep a thing may reach between the fingers before it touches the palm (m)."""
GRASP_STEPS = 12
STALL_STEPS, STALL = 15, 0.0005
"""The hand that moved less (m) in so many steps stands on something: what it has, it grasps."""

Vector = NDArray[np.float64]


class Hands(Protocol):
    """What an expert needs of the simulator."""

    def gripper(self) -> Vector: ...

    def place(self, name: str) -> Vector: ...


class SimulatorHands:
    """Reads places (m) from the running simulator of LIBERO."""

    def __init__(self, sim: Any) -> None:
        self._sim = sim

    def gripper(self) -> Vector:
        """Return where the middle between the finger tips is, (3,)."""
        return self._sim.sim.data.site_xpos[self._sim.robots[0].eef_site_id].copy()

    def place(self, name: str) -> Vector:
        """Return where an object or a part of one is, (3,)."""
        return self._sim.sim.data.body_xpos[self._sim.sim.model.body_name2id(name)].copy()


def expert(task: str, sim: Any) -> Iterator[NDArray[np.float32]]:
    """Return the actions of an episode, each made from the world as it is when it is asked for.

    Args:
        task: One of `EXPERT_TASKS`.
        sim: LIBERO's environment, at the start of an episode.
    """
    hands = SimulatorHands(sim)
    if task == STOVE:
        return turn_knob(hands, "flat_stove_1_button")
    ((_, thing, region),) = sim.parsed_problem["goal_state"]
    return put_into(hands, f"{thing}_main", f"{region.removesuffix('_contain_region')}_main")


def put_into(hands: Hands, thing: str, basket: str) -> Iterator[NDArray[np.float32]]:
    """Take a thing from above, carry it over the basket and let it fall."""
    above = np.array([0.0, 0.0, 0.12])
    while _is_far(hands.place(thing) + above - hands.gripper(), height=0.03):
        yield _move(hands, hands.place(thing) + above, OPEN)
    heights: list[float] = []
    while True:
        thing_place, gripper = hands.place(thing), hands.gripper()
        # A tall thing is taken near its top: its middle is as high as half of it.
        middle = thing_place[2]
        target = np.array([*thing_place[:2], max(middle, 2 * middle - FINGER_LENGTH)])
        heights.append(gripper[2])
        stalls = len(heights) > STALL_STEPS and heights[-STALL_STEPS - 1] - gripper[2] < STALL
        if stalls or not _is_far(target - gripper):
            break
        yield _move(hands, target, OPEN)
    for _ in range(GRASP_STEPS):
        yield _move(hands, hands.gripper(), CLOSED)
    start = hands.gripper()[:2]
    while hands.gripper()[2] < CARRY_HEIGHT - 0.03:
        yield _move(hands, np.array([*start, CARRY_HEIGHT]), CLOSED)
    while np.abs(hands.place(basket) - hands.gripper())[:2].max() > 0.01:
        yield _move(hands, np.array([*hands.place(basket)[:2], CARRY_HEIGHT]), CLOSED)
    while hands.gripper()[2] > DROP_HEIGHT:
        yield _move(hands, np.array([*hands.place(basket)[:2], DROP_HEIGHT - 0.03]), CLOSED)
    while True:
        yield _move(hands, hands.gripper(), OPEN)


def turn_knob(hands: Hands, knob: str) -> Iterator[NDArray[np.float32]]:
    """Take a knob between the fingers and turn the wrist."""
    # Its grip lies a little behind its axis.
    grip = hands.place(knob) + np.array([-0.01, 0.002, 0.0])
    for height in (0.125, 0.05):
        target = grip + np.array([0.0, 0.0, height])
        while _is_far(target - hands.gripper()):
            yield _move(hands, target, OPEN)
    for _ in range(GRASP_STEPS):
        yield _move(hands, hands.gripper(), CLOSED)
    axis = hands.place(knob) + np.array([0.0, 0.0, 0.05])
    while True:
        yield _move(hands, axis, CLOSED, turn=1.0)


def _is_far(way: Vector, height: float = NEAR) -> bool:
    return bool(np.abs(way[:2]).max() > NEAR or abs(way[2]) > height)


def _move(hands: Hands, target: Vector, fingers: float, turn: float = 0.0) -> NDArray[np.float32]:
    way = np.clip((target - hands.gripper()) / REACH, -1.0, 1.0)
    return np.array([*way, 0.0, 0.0, turn, fingers], np.float32)
