"""A thousand sources polled each second: how many polls begin on time."""

from __future__ import annotations

import statistics
import time
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from bench.children import Child
from bench.errors import BenchError
from bench.rows import Row
from bench.stage import NUMBER_PARAM, flicker, write_config

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.nginx import Hit
    from bench.stage import Stage

INTERVAL_S = 1.0
ANSWER_S = 0.05
EVENTS = 10
"""Of each answer, the same each time: what a time filter brings again."""

TOLERANCE_S = 0.1
START_LIMIT_S = 120.0
SETTLE_S = 5.0
WINDOW_S = 20.0
GRID = "the k-th poll of a source is due k seconds after its first one"
STEP = "each poll is due a second after the one before it began"


def measure_schedule(stage: Stage) -> list[Row]:
    """Poll many sources each second and see when the polls begin.

    Raises:
        BenchError: Not all sources are polled.
    """
    path = f"/after/{ANSWER_S}/{stage.listing.of_few(EVENTS)}"
    interval_ms = round(INTERVAL_S * 1000)
    directory = stage.new_directory()
    write_config(directory, stage.fleet(path, polling_frequency_ms=interval_ms))
    stage.api.forget()
    with Child(flicker("--track"), directory, name="schedule") as child:
        child.wait_until(
            lambda: len(_polls_by_source(stage.api.hits())) == stage.sources,
            "a poll of each source",
            START_LIMIT_S,
            every_s=1.0,
        )
        time.sleep(SETTLE_S)
        began_at, cpu_s = time.time(), child.cpu_s
        time.sleep(WINDOW_S)
        ended_at, cpu_s = time.time(), child.cpu_s - cpu_s
        # What began at the end of the window is logged when it is answered.
        time.sleep(INTERVAL_S)
        hits = stage.api.hits()
        peak = max(sample.rss_bytes for sample in child.samples)
        child.stop()
    polls = _polls_by_source(hit for hit in hits if began_at <= hit.began_at < ended_at)
    if len(polls) < stage.sources:
        raise BenchError(f"only {len(polls)} of {stage.sources} sources were polled in the window")
    lateness = [late for begins in polls.values() for late in measure_lateness(begins, ended_at)]
    steps = [
        after - before - INTERVAL_S
        for begins in polls.values()
        for before, after in pairwise(begins)
    ]
    what = f"{stage.sources:,} sources, 1 s polling, API answers in 50 ms"
    asked = sum(len(begins) for begins in polls.values())
    facts = {
        "polls_per_s": round(asked / WINDOW_S, 1),
        "polls_missing": lateness.count(float("inf")),
        "share_by_step": round(_share_on_time(steps), 4),
        "late_ms_median": _milliseconds(statistics.median(lateness)),
        "late_ms_p99": _milliseconds(sorted(lateness)[int(len(lateness) * 0.99)]),
        "cpu_share": round(cpu_s / WINDOW_S, 3),
    }
    return [
        Row(
            "schedule",
            what,
            "polls that begin within 100 ms of their time",
            100 * _share_on_time(lateness),
            99.0,
            "%",
            note=f"{GRID} in {WINDOW_S:.0f} s; one that is missing is not on time. Where "
            f"{STEP}, it is {100 * _share_on_time(steps):.1f} %",
            facts=facts,
        ),
        Row("schedule-rss", "the same", "memory, at most", peak / 1e6, 200.0, "MB", "less"),
    ]


def measure_lateness(begins: list[float], until: float) -> list[float]:
    """Give the seconds that each poll of one source is late; negative where it is early.

    Args:
        begins: When its polls began, in order; the first one sets the grid.
        until: A poll that is due after this instant is not expected yet.

    Returns:
        One figure for each poll that is due; infinite where there is none.
    """
    late = []
    number, due = 1, begins[0] + INTERVAL_S
    while due + TOLERANCE_S < until:
        late.append(begins[number] - due if number < len(begins) else float("inf"))
        number += 1
        due = begins[0] + number * INTERVAL_S
    return late


def _share_on_time(lateness: list[float]) -> float:
    return sum(abs(late) <= TOLERANCE_S for late in lateness) / max(1, len(lateness))


def _milliseconds(seconds: float) -> float | None:
    return None if seconds == float("inf") else round(seconds * 1000, 1)


def _polls_by_source(hits: Iterable[Hit]) -> dict[str, list[float]]:
    polls: dict[str, list[float]] = {}
    for hit in hits:
        (number,) = parse_qs(urlsplit(hit.uri).query)[NUMBER_PARAM]
        polls.setdefault(number, []).append(hit.began_at)
    return {number: sorted(begins) for number, begins in polls.items()}
