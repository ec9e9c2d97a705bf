# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os

import pytest

from vlakit.environments import rendering
from vlakit.errors import SimulatorError


def test_without_opengl_the_error_has_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(rendering, "can_load", lambda backend: False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(
        SimulatorError, match="apt-get install -y --no-install-recommends libegl1 libgl1"
    ):
        rendering.choose_backend()


def test_osmesa_is_taken_where_there_is_no_egl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setattr(rendering, "can_load", lambda backend: backend == "osmesa")
    monkeypatch.setattr("sys.platform", "linux")
    assert rendering.choose_backend() == "osmesa"
    assert os.environ["MUJOCO_GL"] == "osmesa"


def test_a_choice_of_the_user_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setattr(rendering, "can_load", lambda backend: backend == "egl")
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(SimulatorError, match="MUJOCO_GL=osmesa cannot load its library"):
        rendering.choose_backend()
