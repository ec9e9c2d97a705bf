# SPDX-License-Identifier: Apache-2.0
"""The pages of `vlakit eval` in a real browser: no complaint, no network, films play, all sorts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.browser import Browser, find_browser, sorted_column
from tests.unit.evaluation.saved_evaluation import TASKS, make_result, write_evaluation, write_film
from vlakit.cli.compare import main as compare
from vlakit.evaluation import html_page
from vlakit.evaluation.report_page import write_evaluation_report

pytestmark = pytest.mark.skipif(
    find_browser() is None,
    reason="no Chromium: apt-get install chromium, or set VLAKIT_CHROMIUM to one",
)
SUITES, BY_TASK, EPISODES = 0, 1, 2
"""The tables of the page, in their order."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_browser()
    assert program is not None
    with Browser(program) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    write_evaluation(folder)
    return write_evaluation_report(folder)


def film_times(browser: Browser) -> list[float]:
    """Play every film for a moment; returns where each of them stands then."""
    if not browser.evaluate("""document.createElement('video').canPlayType(
            'video/mp4; codecs="avc1.640028"') !== ''"""):
        pytest.skip("this Chromium was built without h264")
    return browser.evaluate(
        """(async () => {
            const films = [...document.querySelectorAll('video')];
            films.forEach(film => film.closest('details').open = true);
            await Promise.all(films.map(film => film.play()));
            await new Promise(done => setTimeout(done, 400));
            return films.map(film => film.error ? -1 : film.currentTime);
        })()"""
    )


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_loads_without_a_complaint_and_asks_for_nothing(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    browser.open(page, width=width, dark=dark)
    assert browser.complaints() == []
    assert browser.requested() == [page.as_uri()]
    # Wide tables and charts scroll by themselves: the page never does.
    assert browser.evaluate("document.documentElement.scrollWidth") == width


def test_text_can_be_read_in_light_and_in_dark(browser: Browser, page: Path) -> None:
    for dark in (False, True):
        browser.open(page, dark=dark)
        colours = browser.evaluate(
            "['h1', '.mute', '.good', '.bad'].map(name => "
            "getComputedStyle(document.querySelector(name)).color)"
        )
        ground = (18, 18, 18) if dark else (255, 255, 255)
        for colour in colours:
            text = tuple(int(part) for part in colour[4:-1].split(","))
            assert contrast(text, ground) > 4.5, (dark, colours)


def contrast(first: tuple[int, ...], second: tuple[int, ...]) -> float:
    """Return the contrast ratio of two colours. Source: WCAG 2.1, relative luminance."""

    def luminance(colour: tuple[int, ...]) -> float:
        parts = [value / 255 for value in colour]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_films_play(browser: Browser, page: Path) -> None:
    browser.open(page)
    times = film_times(browser)
    assert len(times) == 6
    assert all(time > 0.1 for time in times), times
    assert browser.complaints() == []


def test_a_film_shows_its_first_picture_before_it_plays(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.wait_for("[...document.querySelectorAll('video')].every(film => film.readyState >= 2)")
    red, green, blue, opaque = browser.evaluate(
        """(() => {
            const canvas = document.createElement('canvas');
            canvas.width = canvas.height = 64;
            const drawing = canvas.getContext('2d');
            drawing.drawImage(document.querySelector('video'), 0, 0);
            return [...drawing.getImageData(10, 30, 1, 1).data];
        })()"""
    )
    assert opaque == 255
    assert red > 200 > green > blue  # the orange square of the first picture


def test_tables_sort_by_a_click_and_turn_round_by_a_second(browser: Browser, page: Path) -> None:
    browser.open(page)
    rates = [float(value) for value in sorted_column(browser, BY_TASK, 2)]
    assert rates == [0.9, 0.5, 0.0]
    assert [float(value) for value in sorted_column(browser, BY_TASK, 2)] == [0.0, 0.5, 0.9]
    names = sorted_column(browser, BY_TASK, 1)
    assert names == ["<push> the plate", "both moka pots", "open the drawer"]
    seeds = [float(value) for value in sorted_column(browser, EPISODES, 1)]
    assert seeds == sorted(seeds, reverse=True)
    assert len(seeds) == 30
    marked = browser.evaluate("[...document.querySelectorAll('th[aria-sort]')].length")
    assert marked == 2  # one in each of the tables that were sorted


def test_failures_alone_can_be_looked_at(browser: Browser, page: Path) -> None:
    browser.open(page)
    shown = "[...document.querySelectorAll('video')].filter(film => film.offsetHeight > 0).length"
    counts = {}
    for choice in ("failures", "successes", "all"):
        browser.evaluate(f"document.querySelector('input[value={choice}]').click()")
        counts[choice] = browser.evaluate(shown)
    assert counts == {"failures": 3, "successes": 3, "all": 6}


def test_films_beside_the_page_play_too(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many to be inside: they are read from the folder beside it, also after a move."""
    monkeypatch.setattr(html_page.VideoShelf.__init__, "__defaults__", (0,))
    folder = tmp_path / "with a # in its name" / "first"
    write_evaluation(folder)
    write_evaluation_report(folder)
    moved = folder.rename(folder.with_name("second"))
    browser.open(moved / "report.html")
    assert "data:video" not in (moved / "report.html").read_text()
    times = film_times(browser)
    assert len(times) == 6
    assert all(time > 0.1 for time in times), times
    assert browser.complaints() == []
    assert all(url.startswith(moved.as_uri()) for url in browser.requested())


def test_the_page_could_not_ask_for_anything_if_it_tried(browser: Browser, tmp_path: Path) -> None:
    """Its own policy forbids it; this also shows that the checks above see a complaint."""
    body = "<img src='http://127.0.0.1:9/x.png'><script src='https://127.0.0.1:9/x.js'></script>"
    (tmp_path / "page.html").write_text(html_page.page("title", "words", [body]))
    browser.open(tmp_path / "page.html")
    complaints = browser.complaints()
    assert len(complaints) >= 2
    assert all("Content Security Policy" in text for text in complaints if "127.0.0.1" in text)
    browser.open(tmp_path / "page.html")
    browser.evaluate("setTimeout(() => { throw new Error('a mistake of ours') })")
    browser.wait_for("true")
    assert any("a mistake of ours" in text for text in browser.complaints())


def test_a_comparison_loads_and_sorts(browser: Browser, tmp_path: Path) -> None:
    for name, wins in (("a", 1), ("b", 6)):
        result = make_result({task: [i < wins for i in range(8)] for task in TASKS[:2]})
        for episode in result.tasks[0].episodes[:3]:
            film = tmp_path / name / "videos" / "x" / f"{episode.seed}.mp4"
            write_film(film, 40)
            episode.video_path = str(film)
        result.save(tmp_path / name)
    folders = [str(tmp_path / name) for name in "ab"]
    assert compare(["--compare", *folders, f"--output_dir={tmp_path}"], lambda argv: 1) == 0
    browser.open(tmp_path / "compare.html", width=360)
    assert browser.complaints() == []
    assert browser.evaluate("document.documentElement.scrollWidth") == 360
    assert sorted_column(browser, 0, 0) == ["<push> the plate", "all", "open the drawer"]
    times = film_times(browser)
    assert len(times) == 4  # two pairs that part and were filmed
    assert all(time > 0.1 for time in times)
