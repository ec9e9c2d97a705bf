# SPDX-License-Identifier: Apache-2.0
"""Meta-World's fifty tasks: what a policy is told, and the groups in which they are evaluated.

Meta-World itself has no language. The sentences are ours; tasks that share a scene (open and close)
differ in as few words as possible, so that a policy has to read them.
Source of the groups: mt10 is Meta-World's own; the difficulties, which LeRobot has too, are from
Seo et al., "Masked World Models for Visual Control" (2022), appendix.
"""

from __future__ import annotations

INSTRUCTIONS: dict[str, str] = {
    "assembly-v3": "put the ring over the peg",
    "basketball-v3": "drop the ball into the basket",
    "bin-picking-v3": "move the block into the other bin",
    "box-close-v3": "put the lid on the box",
    "button-press-topdown-v3": "press the button from above",
    "button-press-topdown-wall-v3": "reach over the wall and press the button from above",
    "button-press-v3": "push the button on the front",
    "button-press-wall-v3": "reach around the wall and push the button",
    "coffee-button-v3": "press the button of the coffee machine",
    "coffee-pull-v3": "pull the mug away from the coffee machine",
    "coffee-push-v3": "push the mug under the coffee machine",
    "dial-turn-v3": "turn the dial",
    "disassemble-v3": "lift the ring off the peg",
    "door-close-v3": "close the door",
    "door-lock-v3": "lock the door",
    "door-open-v3": "open the door",
    "door-unlock-v3": "unlock the door",
    "drawer-close-v3": "close the drawer",
    "drawer-open-v3": "open the drawer",
    "faucet-close-v3": "close the faucet",
    "faucet-open-v3": "open the faucet",
    "hammer-v3": "hammer the nail into the board",
    "hand-insert-v3": "put the gripper into the hole",
    "handle-press-side-v3": "press the handle down from the side",
    "handle-press-v3": "press the handle down",
    "handle-pull-side-v3": "pull the handle up from the side",
    "handle-pull-v3": "pull the handle up",
    "lever-pull-v3": "pull the lever up",
    "peg-insert-side-v3": "insert the peg into the hole from the side",
    "peg-unplug-side-v3": "pull the peg out of the hole",
    "pick-out-of-hole-v3": "pick the puck out of the hole and bring it to the goal",
    "pick-place-v3": "pick up the puck and bring it to the goal",
    "pick-place-wall-v3": "carry the puck over the wall to the goal",
    "plate-slide-back-side-v3": "slide the plate sideways out of the cabinet",
    "plate-slide-back-v3": "slide the plate back out of the cabinet",
    "plate-slide-side-v3": "slide the plate sideways into the cabinet",
    "plate-slide-v3": "slide the plate into the cabinet",
    "push-back-v3": "push the puck back to the goal",
    "push-v3": "push the puck to the goal",
    "push-wall-v3": "push the puck around the wall to the goal",
    "reach-v3": "reach the goal",
    "reach-wall-v3": "reach the goal behind the wall",
    "shelf-place-v3": "put the block on the shelf",
    "soccer-v3": "kick the ball into the goal",
    "stick-pull-v3": "pull the box with the stick",
    "stick-push-v3": "push the box with the stick",
    "sweep-into-v3": "sweep the puck into the hole",
    "sweep-v3": "sweep the puck off the table",
    "window-close-v3": "close the window",
    "window-open-v3": "open the window",
}

_EASY = """button-press button-press-topdown button-press-topdown-wall button-press-wall
coffee-button dial-turn door-close door-lock door-open door-unlock drawer-close drawer-open
faucet-close faucet-open handle-press handle-press-side handle-pull handle-pull-side lever-pull
plate-slide plate-slide-back plate-slide-back-side plate-slide-side reach reach-wall window-close
window-open peg-unplug-side"""
_MEDIUM = """basketball bin-picking box-close coffee-pull coffee-push hammer peg-insert-side
push-wall soccer sweep sweep-into"""
_HARD = "assembly hand-insert pick-out-of-hole pick-place push push-back"
_VERY_HARD = "shelf-place disassemble stick-pull stick-push pick-place-wall"
_MT10 = """reach push pick-place door-open drawer-open drawer-close button-press-topdown
peg-insert-side window-open window-close"""

TASK_GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(f"{name}-v3" for name in names.split())
    for group, names in {
        "easy": _EASY,
        "medium": _MEDIUM,
        "hard": _HARD,
        "very_hard": _VERY_HARD,
        "mt10": _MT10,
    }.items()
} | {"mt50": tuple(INSTRUCTIONS)}
