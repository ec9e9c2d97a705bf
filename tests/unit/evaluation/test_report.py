# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from vlakit.evaluation.report import (
    Comparison,
    LossCurve,
    Report,
    RolloutVideo,
    SuccessCell,
    SuccessRow,
    VideoGroup,
    loss_curve_svg,
    write_report,
)

VOID_TAGS = {"meta", "br"}


class _BalanceChecker(HTMLParser):
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


def _report(video: Path) -> Report:
    cells = [SuccessCell(successes=16, num_rollouts=20), SuccessCell(successes=0, num_rollouts=20)]
    return Report(
        title="Drawers <open> & shut",
        summary="Took 7 minutes.",
        conditions=["policy", "blank"],
        condition_notes=["as recorded", "grey pictures"],
        rows=[
            SuccessRow(policy=policy, task="drawer-open-v3", instruction="open it", cells=cells)
            for policy in ("A", "B<")
        ],
        comparison=Comparison(policies=["A", "B<"], rows=[("latency", ["2 ms", "3 ms"])], note="n"),
        losses=[
            LossCurve(title="A", points=[(20, 1.2), (40, 0.6)]),
            LossCurve(title="B", points=[]),
        ],
        video_groups=[
            VideoGroup(
                title="A, drawer",
                videos=[
                    RolloutVideo(path=video, caption="expert"),
                    RolloutVideo(path=video, caption="policy", is_success=False),
                ],
            )
        ],
        facts=[("seed", "3")],
        commands=[("Train", "vlakit train --seed=3")],
    )


@pytest.fixture
def page(tmp_path: Path) -> str:
    video = tmp_path / "rollout.mp4"
    video.write_bytes(b"not really a film")
    write_report(_report(video), tmp_path / "report.html")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_page_is_well_formed_and_escapes_what_it_is_given(page: str) -> None:
    checker = _BalanceChecker()
    checker.feed(page)
    assert checker.open == []
    assert "Drawers &lt;open&gt; &amp; shut" in page


def test_page_shows_rate_interval_and_counts_of_every_cell(page: str) -> None:
    # Wilson's 95 % interval of 16/20 is [58.4 %, 91.9 %], of 0/20 [0 %, 16.1 %].
    assert "80% <span class='mute'>[58%, 92%] 16/20</span>" in page
    assert "0% <span class='mute'>[0%, 16%] 0/20</span>" in page


def test_page_holds_its_videos_and_asks_for_no_other_file(page: str) -> None:
    assert page.count("data:video/mp4;base64,bm90IHJlYWxseSBhIGZpbG0=") == 2
    assert not re.search(r"""(src|href)=['"](?!data:)""", page)
    assert page.count("<b class='bad'>failure</b>") == 1


def test_page_compares_policies_and_leaves_out_what_is_empty(page: str) -> None:
    assert "<tr><th>latency</th><td>2 ms</td><td>3 ms</td></tr>" in page
    assert page.count("<th>B&lt;</th>") == 2  # a row of the success table, a column of the costs
    assert "<th>policy</th><th>task</th>" in page
    assert page.count("<svg") == 1


def test_page_gives_the_commands(page: str) -> None:
    assert "<pre>vlakit train --seed=3</pre>" in page


def test_loss_curve_falls_when_the_loss_falls() -> None:
    points = re.search(r"<polyline points='([^']*)'", loss_curve_svg([(10, 2.0), (20, 1.0)]))
    assert points is not None
    (x0, y0), (x1, y1) = (map(float, pair.split(",")) for pair in points[1].split())
    assert x0 < x1
    assert y0 < y1  # SVG counts rows downwards
