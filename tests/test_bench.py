from __future__ import annotations

from xml.etree import ElementTree as ET

from bench.picture import draw
from bench.schedule import measure_lateness


def test_a_poll_is_late_by_its_distance_from_the_grid_of_the_first() -> None:
    late = measure_lateness([10.0, 11.0, 12.25, 13.0], until=13.5)

    assert late == [0.0, 0.25, 0.0]


def test_a_source_that_polls_too_seldom_drifts_off_its_grid() -> None:
    begins = [1.05 * number for number in range(6)]

    late = measure_lateness(begins, until=5.5)

    assert [round(each, 2) for each in late] == [0.05, 0.1, 0.15, 0.2, 0.25]


def test_a_poll_that_is_due_and_never_begins_is_as_late_as_can_be() -> None:
    late = measure_lateness([0.0, 1.0], until=3.5)

    assert late == [0.0, float("inf"), float("inf")]


def test_a_poll_that_is_not_due_yet_is_not_missed() -> None:
    assert measure_lateness([0.0], until=1.05) == []


def test_the_picture_shows_the_fastest_first_and_bars_as_long_as_their_rates() -> None:
    picture = ET.fromstring(draw({"slow & steady": 1_000, "fast": 4_000}, "here"))  # noqa: S314 - our own

    bars = [float(bar.attrib["width"]) for bar in picture.iter("{http://www.w3.org/2000/svg}rect")]
    texts = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert bars[0] == 4 * bars[1]
    assert texts.index("fast") < texts.index("slow & steady")
    assert "4,000" in texts
