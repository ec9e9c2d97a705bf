# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.unit.evaluation.saved_evaluation import (
    TASKS,
    make_episode,
    make_result,
    write_evaluation,
    write_film,
)
from vlakit.evaluation.charts import (
    DifferenceRow,
    RatePoint,
    differences,
    histogram,
    rates_over_steps,
    traces,
)
from vlakit.evaluation.checkpoint_history import evaluated_checkpoints, logged_rollouts
from vlakit.evaluation.html_page import VideoShelf, rate_cell
from vlakit.evaluation.replay_findings import REPLAY_FILE
from vlakit.evaluation.report_page import write_evaluation_report
from vlakit.evaluation.results import EvaluationResult
from vlakit.evaluation.saved import find_file, load_result

VOID_TAGS = {"meta", "br", "input"}


class _Checker(HTMLParser):
    """Fails when a tag is closed that was not the last one opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass  # closed in itself

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluation")
    write_evaluation(path)
    write_evaluation_report(path)
    return path


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_escapes_what_it_is_given(page: str) -> None:
    checker = _Checker()
    checker.feed(page)
    assert checker.open == []
    assert "&lt;push&gt; the plate" in page
    assert "RuntimeError: &lt;the gripper&gt; fell off" in page
    assert "<push>" not in page
    assert "<the gripper>" not in page


def test_the_page_asks_for_nothing(page: str) -> None:
    outside = re.findall(r"""(?:src|href)=['"](?!data:)[^'"]*""", page)
    assert outside == []
    assert "@import" not in page
    assert not re.search(r"url\((?!data:)", page)


def test_every_rate_has_its_interval_and_its_number(page: str) -> None:
    # Wilson: 9/10 [60, 98], 5/10 [24, 76], 0/9 [0, 30]; 14/20 [48, 85]; all 14/29 [31, 66].
    for text in (
        "90% <span class='mute'>[60%, 98%] 9/10</span>",
        "50% <span class='mute'>[24%, 76%] 5/10</span>",
        "0% <span class='mute'>[0%, 30%] 0/9</span>",
        "70% <span class='mute'>[48%, 85%] 14/20</span>",
        "48% <span class='mute'>[31%, 66%] 14/29</span>",
    ):
        assert text in page
    assert "14 of 29 rollouts succeeded: 48.3%, 95 % interval 31.4% to 65.6%" in page


def test_troubles_stand_on_top(page: str) -> None:
    top = page[: page.index("<h2>")]
    assert "<b>1</b> rollouts ended in an error of the simulator" in top
    assert "<b>1</b> times a simulator died or hung" in top
    assert "<b>2</b> of 300 plans could not be decoded" in top


def test_a_run_without_troubles_has_none(tmp_path: Path) -> None:
    make_result({TASKS[0]: [True, False]}).save(tmp_path)
    text = write_evaluation_report(tmp_path).read_text()
    assert "class='troubles'" not in text
    for absent in (
        "undecoded</button></th><th>retries",
        "<h2>Errors",
        "<h2>Rollouts",
        "<h2>Replay",
    ):
        assert absent not in text


def test_the_page_says_how_to_repeat_it(page: str) -> None:
    assert (
        "vlakit eval --policy.path=outputs/... --env.type=libero &#x27;--env.task=a &amp; b" in page
    )
    assert "vlakit 0.1, torch 2.13.0" in page
    assert "&quot;n_episodes&quot;: 10" in page


def test_nothing_finished_is_said(tmp_path: Path) -> None:
    result = make_result({TASKS[0]: [False, False]})
    for episode in result.episodes:
        episode.ended = "error"
    result.save(tmp_path)
    text = write_evaluation_report(tmp_path).read_text()
    assert "None of 2 rollouts finished: see Errors." in text


def test_a_replay_is_shown(tmp_path: Path) -> None:
    make_result({TASKS[0]: [True]}).save(tmp_path)
    entry = {
        "summary": "Over 3 compared frames: states equal to the bit.",
        "findings": ["<camera> lies upside down"],
        "state": [{"name": "x", "max_error": 0.25, "range": 1.0, "motion_correlation": None}],
        "cameras": [{"name": "observation.image", "differences": [30.0, 2.0]}],
        "turns": ["as recorded", "upside down"],
    }
    (tmp_path / REPLAY_FILE).write_text(json.dumps(entry))
    text = write_evaluation_report(tmp_path).read_text()
    assert "&lt;camera&gt; lies upside down" in text
    assert "<td class='number' data-value='0.25'>0.25</td>" in text


def test_results_are_read_back_as_they_were(folder: Path) -> None:
    result = load_result(folder)
    assert [len(task.episodes) for task in result.tasks] == [10, 10, 10]
    assert sum(task.num_successes for task in result.tasks) == 14
    assert result.tasks[2].episodes[3].ended == "error"
    assert result.episodes[0].plan_ms == pytest.approx(
        make_episode(1000, success=True).plan_ms, abs=1e-3
    )


def test_results_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    info = make_result({TASKS[0]: [True, False]}).to_json()
    for episode in info["per_task"][0]["episodes"]:
        for name in ("init_state", "ended", "plan_ms", "retries", "trace_path", "reason"):
            del episode[name]
    (tmp_path / "eval_info.json").write_text(json.dumps(info))
    episodes = load_result(tmp_path).episodes
    assert [episode.success for episode in episodes] == [True, False]
    assert all(episode.is_finished for episode in episodes)
    assert write_evaluation_report(tmp_path).is_file()


def test_files_are_found_where_the_folder_was_moved_to(tmp_path: Path) -> None:
    film = tmp_path / "old" / "videos" / "task_0" / "eval_episode_0.mp4"
    write_film(film, 10, num_pictures=2)
    recorded = str(film)
    moved = film.parents[2].rename(tmp_path / "new")
    assert find_file(moved, recorded) == moved / "videos" / "task_0" / "eval_episode_0.mp4"
    assert find_file(moved, "elsewhere/else.mp4") is None
    assert find_file(moved, None) is None


def test_films_go_beside_the_page_when_there_is_no_room(tmp_path: Path) -> None:
    films = [tmp_path / "a #b" / f"{name}.mp4" for name in "xy"]
    films[0].parent.mkdir()
    for film in films:
        film.write_bytes(b"0123456789")
    shelf = VideoShelf(tmp_path, room=15)
    first, second = (shelf.figure(film, "words") for film in films)
    assert "src='data:video/mp4;base64,MDEyMzQ1Njc4OQ==#t=0.001'" in first
    assert "src='a%20%23b/y.mp4#t=0.001'" in second
    assert "1 videos did not fit" in shelf.remark()
    elsewhere = VideoShelf(tmp_path / "a #b", room=0)
    outside = tmp_path / "z.mp4"
    outside.write_bytes(b"0")
    assert "data:video" in elsewhere.figure(
        outside, "words"
    )  # a page never points out of its folder


def test_a_rate_of_nothing_is_no_rate() -> None:
    assert "0 rollouts" in rate_cell(0, 0).html
    assert rate_cell(0, 0).value < rate_cell(0, 1).value


def evaluation_of(run: Path, step: str, outcomes: list[bool], folder: Path, **more: object) -> None:
    checkpoint = str(run / "checkpoints" / step / "pretrained_model")
    make_result({TASKS[0]: outcomes}, checkpoint=checkpoint, **more).save(folder)


def test_evaluations_of_one_run_are_found_beside_one_another(tmp_path: Path) -> None:
    run, outputs = tmp_path / "train" / "goal", tmp_path / "eval"
    evaluation_of(run, "000100", [True, False, False, False], outputs / "100")
    evaluation_of(run, "000200", [True, True, True, False], outputs / "200")
    evaluation_of(run, "000200", [True], outputs / "200_short")
    evaluation_of(run, "000300", [True] * 4, outputs / "blind", eval={"blank_images": True})
    evaluation_of(tmp_path / "other", "000300", [True] * 4, outputs / "other")
    (outputs / "damaged").mkdir()
    (outputs / "damaged" / "eval_info.json").write_text("{")
    points = evaluated_checkpoints(load_result(outputs / "100"), outputs / "100")
    assert [(point.step, point.rate) for point in points] == [(100, 0.25), (200, 0.75)]
    assert points[1].low == pytest.approx(0.3006, abs=1e-4)  # Wilson, 3/4
    page = write_evaluation_report(outputs / "100").read_text()
    assert "step 200: 75% [30%, 95%]" in page


def test_default_folders_of_other_days_count_too(tmp_path: Path) -> None:
    run, outputs = tmp_path / "run", tmp_path / "outputs/eval"
    evaluation_of(run, "000100", [True], outputs / "2026-01-01" / "10-00-00_x")
    evaluation_of(run, "000200", [True], outputs / "2026-01-02" / "09-00-00_x")
    today = outputs / "2026-01-02" / "09-00-00_x"
    points = evaluated_checkpoints(load_result(today), today)
    assert [point.step for point in points] == [100, 200]


def test_rollouts_of_the_training_log_are_found_with_their_number(tmp_path: Path) -> None:
    lines = [
        {"step": 50, "loss": 1.0},
        {"step": 100, "rollouts": {"pc_success": 25.0, "n_episodes": 8}},
        {"step": 200, "rollouts": {"pc_success": 75.0, "n_episodes": 8}},
        {
            "step": 300,
            "rollouts": {"pc_success": 75.0},
        },  # of an earlier version: no number, no rate
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "checkpoints" / "000200").mkdir(parents=True)
    (tmp_path / "checkpoints" / "last").symlink_to("000200")
    points = logged_rollouts(str(tmp_path / "checkpoints" / "last" / "pretrained_model"))
    assert [(point.step, point.rate) for point in points] == [(100, 0.25), (200, 0.75)]
    assert points[0].low == pytest.approx(0.0715, abs=1e-4)  # Wilson, 2/8
    assert logged_rollouts("somebody/on-the-hub") == []


def numbers(text: str) -> list[float]:
    return [float(value) for value in re.findall(r"-?\d+\.?\d*", text)]


def test_a_histogram_counts_every_value() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        values = generator.gamma(2, 10, generator.integers(1, 500)).tolist()
        svg = histogram(values, unit="ms")
        counts = [int(count) for count in re.findall(r"<title>(\d+) between", svg)]
        assert sum(counts) == len(values)
        assert f"median {np.median(values):.0f} ms" in svg


def test_a_histogram_of_one_value() -> None:
    assert "median 0 ms" in histogram([0.0, 0.0], unit="ms")


def test_traces_have_a_line_per_dimension_and_stay_in_their_strips() -> None:
    actions = np.stack([np.linspace(0, 1, 1000), np.zeros(1000)], axis=1)
    svg = traces(actions, ["up", "flat"])
    lines = re.findall(r"<polyline points='([^']*)'", svg)
    assert len(lines) == 2
    rising = [numbers(pair)[1] for pair in lines[0].split()]
    assert rising == sorted(rising, reverse=True)  # SVG counts rows downwards
    assert len(rising) <= 400
    assert len({numbers(pair)[1] for pair in lines[1].split()}) == 1
    assert max(rising) < min(numbers(pair)[1] for pair in lines[1].split())
    assert traces(actions[:1], ["up", "flat"]).count("<polyline") == 2


def test_rates_stand_higher_where_they_are_higher() -> None:
    svg = rates_over_steps([RatePoint(0, 0.2, 0.1, 0.3), RatePoint(500, 0.9, 0.8, 1)], label="x")
    (_, y0, *_), (_, y1, *_) = (numbers(c) for c in re.findall(r"<circle cx=[^>]*", svg))
    assert y1 < y0
    assert rates_over_steps([RatePoint(0, 1, 0.5, 1)], label="x")


def test_differences_lie_on_their_side_of_zero() -> None:
    svg = differences([DifferenceRow("<a>", 0.5, 0.2, 0.7), DifferenceRow("b", -0.5, -0.7, -0.2)])
    right, left = (numbers(circle)[0] for circle in re.findall(r"<circle cx=[^>]*", svg))
    (zero,) = re.findall(r"<line x1='([\d.]+)' [^>]*stroke='currentColor'", svg)
    assert left < float(zero) < right
    assert "&lt;a&gt;" in svg


def test_a_result_without_tasks_makes_a_page(tmp_path: Path) -> None:
    result = make_result({TASKS[0]: [True]})
    EvaluationResult(result.tasks, 1.0, {}).save(tmp_path)
    assert "policy on a simulator" in write_evaluation_report(tmp_path).read_text()
