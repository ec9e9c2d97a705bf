# SPDX-License-Identifier: Apache-2.0
"""Choosing how MuJoCo draws without a screen, and a camera that draws fast on a CPU.

On a CPU (Mesa's llvmpipe) the cost of a picture is shadows and multi-sampling, hardly its size:
without shadow, multi-sampling, reflection and haze it is about ten times cheaper.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlakit.errors import SimulatorError

INSTALL_LINE = "sudo apt-get install -y --no-install-recommends libegl1 libgl1"
_LIBRARIES = {
    "egl": (("libEGL.so.1", "libEGL.so"), ("libGL.so.1", "libGL.so")),
    "osmesa": (("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"),),
}


def can_load(backend: str) -> bool:
    """Return whether the system libraries of `egl` or `osmesa` can be loaded."""
    return all(any(_loads(name) for name in names) for names in _LIBRARIES[backend])


def choose_backend() -> str:
    """Set MUJOCO_GL unless the user did, and return it; call before mujoco is first imported.

    Raises:
        SimulatorError: Neither EGL nor OSMesa is installed, or not the one MUJOCO_GL asks for.
    """
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    if sys.platform == "darwin" or (wanted and wanted not in _LIBRARIES):
        return wanted
    for backend in (wanted,) if wanted else ("egl", "osmesa"):
        if can_load(backend):
            os.environ["MUJOCO_GL"] = backend
            # Drawing in the calling thread is faster for small pictures than llvmpipe's thread
            # pool, and several workers do not fight for the cores.
            os.environ.setdefault("LP_NUM_THREADS", "0")
            return backend
    given = f"MUJOCO_GL={wanted}" if wanted else "No OpenGL library for rendering without a screen"
    raise _no_rendering(f"{given} was found" if not wanted else f"{given} cannot load its library")


class Camera:
    """Draws one camera of a MuJoCo model at one size.

    Args:
        model: `mujoco.MjModel`; the quality settings in it are changed.
        camera_name: A camera of the model.
        height: Rows of the picture.
        width: Columns of the picture.
        fast: Without shadow, multi-sampling, reflection and haze.

    Raises:
        SimulatorError: OpenGL is installed but does not start.
    """

    def __init__(
        self, model: Any, camera_name: str, *, height: int, width: int, fast: bool
    ) -> None:
        mujoco: Any = importlib.import_module("mujoco")
        self.camera_name = camera_name
        model.vis.global_.offheight = max(height, model.vis.global_.offheight)
        model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
        if fast:
            model.vis.quality.shadowsize = 0
            model.vis.quality.offsamples = 0
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except (AttributeError, ImportError, RuntimeError, mujoco.FatalError) as error:
            raise _no_rendering(f"OpenGL did not start ({error})") from error
        if fast:
            for flag in ("mjRND_SHADOW", "mjRND_REFLECTION", "mjRND_HAZE"):
                self._renderer.scene.flags[getattr(mujoco.mjtRndFlag, flag)] = 0

    def draw(self, data: Any) -> NDArray[np.uint8]:
        """Return the picture of the world's state `mujoco.MjData`, uint8 (height, width, 3)."""
        self._renderer.update_scene(data, camera=self.camera_name)
        return self._renderer.render()

    def close(self) -> None:
        """Free the OpenGL context; left to the interpreter's exit it prints EGL errors."""
        self._renderer.close()


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _no_rendering(problem: str) -> SimulatorError:
    return SimulatorError(
        f"{problem}, but the simulator draws its camera with EGL or OSMesa. Install it with: "
        f"{INSTALL_LINE}"
    )
