# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from vlakit.environments import gl_backend
from vlakit.errors import SimulatorError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Return a function that describes the machine: what loads, what EGL says, which Linux."""
    for name in ("MUJOCO_GL", "LOCAL_RANK", "MUJOCO_EGL_DEVICE_ID", "LP_NUM_THREADS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr("sys.platform", "linux")

    def describe(loads: Iterable[str] = (), problem: str = "", system: str = "ID=debian") -> None:
        (tmp_path / "os-release").write_text(system)
        found = {"problem": problem} if problem else {"vendor": "Mesa", "is_software": True}
        monkeypatch.setattr(gl_backend, "OS_RELEASE", tmp_path / "os-release")
        monkeypatch.setattr(gl_backend, "can_load", lambda backend: backend in loads)
        monkeypatch.setattr(gl_backend, "probe_egl", lambda: found)

    return describe


@pytest.mark.parametrize(
    ("system", "words"),
    [
        ("ID=debian", "sudo apt-get install -y --no-install-recommends libegl1 libgl1"),
        ('ID=ubuntu\nID_LIKE="debian"', "sudo apt-get install .* libegl1 libgl1"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"', "sudo dnf install -y mesa-libEGL"),
        ("ID=arch", "sudo pacman"),
        ("ID=plan9", "your system's packages for libEGL.so.1"),
    ],
)
def test_without_opengl_the_error_has_the_line_to_type(system: str, words: str, machine) -> None:
    machine(system=system)
    with pytest.raises(SimulatorError, match=words):
        gl_backend.choose_backend()
    assert "MUJOCO_GL" not in os.environ


def test_osmesa_is_taken_where_there_is_no_egl(machine) -> None:
    machine(loads=["osmesa"])
    assert gl_backend.choose_backend() == "osmesa"
    assert os.environ["MUJOCO_GL"] == "osmesa"


def test_osmesa_is_taken_where_egl_has_no_driver(machine) -> None:
    machine(loads=["egl", "osmesa"], problem="no driver")
    assert gl_backend.choose_backend() == "osmesa"


def test_egl_without_a_driver_is_not_enough(machine) -> None:
    machine(loads=["egl"], problem="no device starts: there is no driver")
    with pytest.raises(SimulatorError, match=r"there is no driver.*apt-get install"):
        gl_backend.choose_backend()


def test_a_choice_of_the_user_is_not_replaced(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(loads=["egl"])
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    with pytest.raises(SimulatorError, match="MUJOCO_GL=osmesa cannot load its library"):
        gl_backend.choose_backend()


def test_what_draws_is_said_in_one_line(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(loads=["egl"])
    assert gl_backend.backend_note() == "drawing with EGL (Mesa, on the CPU)"
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    assert gl_backend.backend_note() == "drawing with glfw"


def test_the_probe_answers_on_this_machine() -> None:
    found = gl_backend.probe_egl()
    if gl_backend.can_load("egl"):
        assert found.get("vendor") or found["problem"]
    else:
        assert "problem" in found
