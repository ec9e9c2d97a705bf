# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.evaluation.saved_evaluation import TASKS, make_result, write_film
from vlakit.errors import ConfigError
from vlakit.evaluation.compare import compare
from vlakit.evaluation.compare_page import comparison_page, verdict
from vlakit.evaluation.paired import PairedCounts
from vlakit.evaluation.results import EvaluationResult

DRAWER, PLATE, POTS = TASKS


def results() -> tuple[EvaluationResult, EvaluationResult]:
    a = make_result({DRAWER: [True, True, False, False], PLATE: [False] * 6})
    b = make_result({DRAWER: [True, False, True, False], PLATE: [True] * 6})
    return a, b


def test_episodes_pair_by_task_and_seed_whatever_their_order() -> None:
    a, b = results()
    b.tasks.reverse()
    b.tasks[1].episodes.reverse()
    drawer, plate = compare(a, b).tasks
    assert drawer.counts == PairedCounts(both=1, only_a=1, only_b=1, neither=1)
    assert plate.counts == PairedCounts(only_b=6)


def test_numbers_by_task_and_pooled() -> None:
    entry = compare(*results()).to_json()
    drawer, plate = entry["per_task"]
    assert (drawer["pc_success_a"], drawer["pc_success_b"], drawer["pc_difference"]) == (50, 50, 0)
    assert drawer["mcnemar_p"] == 1
    assert plate["pc_difference"] == 100
    assert plate["mcnemar_p"] == pytest.approx(2 / 2**6)
    pooled = entry["pooled"]
    assert (pooled["n_pairs"], pooled["only_a"], pooled["only_b"]) == (10, 1, 7)
    assert pooled["pc_success_a_interval_95"] == pytest.approx([5.67, 50.98], abs=0.01)  # 2/10
    assert pooled["mcnemar_p"] == pytest.approx(2 * (1 + 8) / 2**8)
    low, high = pooled["pc_difference_interval_95"]
    assert pooled["pc_difference"] == pytest.approx(60)
    assert 0 < low < 60 < high < 100
    json.dumps(entry, allow_nan=False)


def test_an_error_of_the_simulator_takes_its_pair_out() -> None:
    a, b = results()
    a.tasks[1].episodes[0].ended = "error"
    plate = compare(a, b).tasks[1]
    assert (plate.counts, plate.num_errors) == (PairedCounts(only_b=5), 1)


def test_nothing_finished_is_no_number() -> None:
    a, b = results()
    for episode in a.episodes:
        episode.ended = "error"
    comparison = compare(a, b)
    assert comparison.to_json()["pooled"]["pc_difference"] is None
    assert verdict(comparison.pooled) == "No pair was finished by both."


def test_other_tasks_are_refused_by_name() -> None:
    a = make_result({DRAWER: [True], PLATE: [True]})
    b = make_result({DRAWER: [True], POTS: [True]})
    with pytest.raises(ConfigError) as caught:
        compare(a, b)
    assert "only A has task <push> the plate; only B has task both moka pots" in str(caught.value)


def test_other_seeds_are_refused_by_number() -> None:
    a = make_result({DRAWER: [True] * 10})
    b = make_result({DRAWER: [True] * 2})
    with pytest.raises(ConfigError) as caught:
        compare(a, b)
    assert (
        "the seeds of task open the drawer do not pair: only A has seed 1002 (start 2), 1003 "
        "(start 3), 1004 (start 4), 1005 (start 5), 1006 (start 6), 1007 (start 7) and 2 more"
    ) in str(caught.value)
    assert "stop_when_decided" in str(caught.value)


def test_the_same_seed_from_another_stored_start_is_no_pair() -> None:
    a, b = make_result({DRAWER: [True]}), make_result({DRAWER: [True]})
    b.tasks[0].episodes[0].init_state = 7
    with pytest.raises(
        ConfigError, match=r"only A has seed 1000 \(start 0\); only B has seed 1000 \(start 7\)"
    ):
        compare(a, b)


def test_other_simulators_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"A was evaluated in --env\.type=libero, B in --env\.type=pusht"
    ):
        compare(make_result({}), make_result({}, env={"type": "pusht"}))


def test_differing_settings_are_told_those_without_effect_are_not() -> None:
    a, b = (
        make_result(
            {}, env={"type": "libero", "fps": fps}, eval={"blank_images": blank, "batch_size": size}
        )
        for fps, blank, size in ((20, False, 1), (20, True, 8))
    )
    assert compare(a, b).to_json()["differing_settings"] == {"eval.blank_images": [False, True]}


def test_the_page_shows_where_they_part(tmp_path: Path) -> None:
    a, b = results()
    for name, result in (("a", a), ("b", b)):
        film = tmp_path / name / "videos" / "libero_goal_0" / "eval_episode_1.mp4"
        write_film(film, 50, num_pictures=3)
        result.tasks[0].episodes[1].video_path = str(film)
        film_of_both = film.with_stem("eval_episode_0")
        write_film(film_of_both, 90, num_pictures=3)
        result.tasks[0].episodes[0].video_path = str(film_of_both)
    folders = (tmp_path / "a", tmp_path / "b")
    page = comparison_page(
        compare(a, b), folders, tmp_path, command_line="vlakit eval --compare a b"
    )
    assert page.count("<video ") == 2  # seed 1001, where they differ; not seed 1000
    assert "open the drawer, seed 1001" in page
    assert "+60%" in page
    assert "<pre>vlakit eval --compare a b</pre>" in page
