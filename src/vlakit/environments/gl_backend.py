# SPDX-License-Identifier: Apache-2.0
"""Choosing how MuJoCo draws without a screen: EGL where it starts, else OSMesa."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from vlakit.errors import SimulatorError

PROBE = Path(__file__).with_name("gl_probe.py")
PROBE_TIMEOUT_S = 60.0
OS_RELEASE = Path("/etc/os-release")
OSMESA_LIBRARIES = ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")
INSTALL_LINES = {
    "debian": "sudo apt-get install -y --no-install-recommends libegl1 libgl1",
    "fedora": "sudo dnf install -y mesa-libEGL mesa-libGL",
    "rhel": "sudo dnf install -y mesa-libEGL mesa-libGL",
    "suse": "sudo zypper install -y Mesa-libEGL1 Mesa-libGL1",
    "arch": "sudo pacman -S --needed mesa libglvnd",
}
"""Family of Linux -> what installs EGL and a driver that draws on the CPU."""


def choose_backend() -> str:
    """Set MUJOCO_GL unless the user did, and return it; call before mujoco is first imported.

    EGL is tried for real, in a process of its own: a library without a driver is no use. Worker
    processes inherit the choice of the process that starts them.

    Raises:
        SimulatorError: Neither EGL nor OSMesa works, or not the one MUJOCO_GL asks for.
    """
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    if sys.platform == "darwin" or wanted not in ("", "egl", "osmesa"):
        return wanted
    if not wanted:
        wanted = _first_that_works()
        os.environ["MUJOCO_GL"] = wanted
    elif not can_load(wanted):
        raise no_rendering(f"MUJOCO_GL={wanted} cannot load its library")
    # Drawing in the calling thread is faster for small pictures than llvmpipe's thread pool, and
    # several workers do not fight for the cores.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    _choose_device()
    return wanted


def backend_note() -> str:
    """Choose a backend, and return one line that says which.

    Raises:
        SimulatorError: None works.
    """
    backend = choose_backend()
    if backend == "egl":
        found = probe_egl()
        where = "on the CPU" if found.get("is_software", True) else "on the GPU"
        return f"drawing with EGL ({found.get('vendor', 'unknown')}, {where})"
    if backend == "osmesa":
        return "drawing with OSMesa on the CPU"
    return f"drawing with {backend or 'the system OpenGL'}"


def can_load(backend: str) -> bool:
    """Return whether the system libraries of `egl` or `osmesa` can be loaded."""
    if backend == "osmesa":
        return any(_loads(name) for name in OSMESA_LIBRARIES)
    return _loads("libEGL.so.1") and _loads("libGL.so.1")


def probe_egl() -> dict[str, Any]:
    """Return what `gl_probe.py` prints, or the problem of running it."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(PROBE)],
            capture_output=True,
            timeout=PROBE_TIMEOUT_S,
            check=True,
        )
        return json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return {"problem": f"asking EGL failed: {error}"}


def no_rendering(problem: str) -> SimulatorError:
    """Return the error for a machine that cannot draw, with the line that helps here."""
    return SimulatorError(
        f"{problem}, but the simulator draws its cameras with EGL or OSMesa. {install_hint()}"
    )


def install_hint() -> str:
    """Return what to type on this system to draw without a screen."""
    if sys.platform == "win32":
        return "Update the graphics driver and set MUJOCO_GL=glfw."
    family = next((name for name in _system_names() if name in INSTALL_LINES), None)
    if family is None:
        return "Install your system's packages for libEGL.so.1 and libGL.so.1 (Mesa)."
    return f"Install it with: {INSTALL_LINES[family]}"


def _first_that_works() -> str:
    problem = "libGL.so.1 is missing"
    if can_load("egl"):
        found = probe_egl()
        if "problem" not in found:
            return "egl"
        problem = found["problem"]
    if can_load("osmesa"):
        return "osmesa"
    raise no_rendering(f"No OpenGL for drawing without a screen was found ({problem})")


def _choose_device() -> None:
    """Under torchrun every process draws on its own GPU, as it computes on its own."""
    rank = os.environ.get("LOCAL_RANK", "")
    if rank and Path(f"/dev/nvidia{rank}").exists():
        os.environ.setdefault("MUJOCO_EGL_DEVICE_ID", rank)


def _system_names() -> list[str]:
    """Return the system's name and those it is like, such as ['ubuntu', 'debian']."""
    try:
        lines = OS_RELEASE.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    entries = {name: value for name, _, value in (line.partition("=") for line in lines)}
    words = f"{entries.get('ID', '')} {entries.get('ID_LIKE', '')}"
    return words.replace('"', "").split()


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
