# SPDX-License-Identifier: Apache-2.0
"""Drawing cameras of a MuJoCo model, fast on a CPU where that is wanted.

On a CPU (Mesa's llvmpipe) the cost of a picture is shadows and multi-sampling, hardly its size.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlakit.environments.gl_backend import no_rendering

COLLISION_GROUP = 0
"""Group of the shapes that touch, in models of robosuite; they are not meant to be seen."""


class SceneRenderer:
    """Draws any camera of a MuJoCo model at one size.

    Args:
        model: `mujoco.MjModel`; the quality settings in it are changed.
        height: Rows of the picture.
        width: Columns of the picture.
        multisampling: Smooth edges, as the model asks for them.
        shadows: Shadows, reflections and haze, as the model asks for them.
        hide_collisions: Leave out the shapes that touch.

    Raises:
        SimulatorError: OpenGL is installed but does not start.
    """

    def __init__(
        self,
        model: Any,
        *,
        height: int,
        width: int,
        multisampling: bool = True,
        shadows: bool = True,
        hide_collisions: bool = False,
    ) -> None:
        mujoco: Any = importlib.import_module("mujoco")
        model.vis.global_.offheight = max(height, model.vis.global_.offheight)
        model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
        if not multisampling:
            model.vis.quality.offsamples = 0
        if not shadows:
            model.vis.quality.shadowsize = 0
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except (AttributeError, ImportError, RuntimeError, mujoco.FatalError) as error:
            raise no_rendering(f"OpenGL did not start ({error})") from error
        if not shadows:
            for flag in ("mjRND_SHADOW", "mjRND_REFLECTION", "mjRND_HAZE"):
                self._renderer.scene.flags[getattr(mujoco.mjtRndFlag, flag)] = 0
        self._options = mujoco.MjvOption()
        if hide_collisions:
            self._options.geomgroup[COLLISION_GROUP] = 0

    def draw(self, data: Any, camera: str) -> NDArray[np.uint8]:
        """Return what a camera sees of the state `mujoco.MjData`, uint8 (height, width, 3)."""
        self._renderer.update_scene(data, camera=camera, scene_option=self._options)
        return self._renderer.render()

    def close(self) -> None:
        """Free the OpenGL context; left to the interpreter's exit it prints EGL errors."""
        self._renderer.close()
