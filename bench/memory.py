"""Whether memory stays as it is while a long backfill runs."""

from __future__ import annotations

import bisect
import statistics
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.backfill import flicker_contender
from bench.children import Child
from bench.contest import take_run
from bench.pages import PAGE_EVENTS
from bench.rows import Row

if TYPE_CHECKING:
    from bench.children import Sample
    from bench.contest import Contender
    from bench.nginx import Hit
    from bench.stage import Stage

LENGTH = 5
"""Times the events of the other backfills."""

SLOWER = 10
CONCURRENCY = 4
"""Requests that Flicker has on their way to one destination, unless told otherwise."""

SLOW_EVENTS = 300_000
"""At most: a backfill that is ten times slower takes ten times as long."""

PARTS = 20
TO_REACH = 1.15


class Course(NamedTuple):
    """The memory over a run, by how much of the work was done.

    Attributes:
        parts: Median of each twentieth, in bytes; a part without a sample is
            left out.
        at_tenth: When a tenth was done.
        growth: The highest part after the first tenth over `at_tenth`.
    """

    parts: list[float]
    at_tenth: float
    growth: float


def measure_memory(stage: Stage) -> list[Row]:
    """Run a long backfill, and one with a destination that is slower than the API."""
    events = stage.events * LENGTH
    path = stage.listing.of(events)
    fast = flicker_contender(stage, path, events, options=("--track",))
    span_s, course = _run(stage, fast)
    rows = [_row("memory", f"memory over {events:,} events (--track)", course, "")]
    events = min(stage.events, SLOW_EVENTS)
    delay_s = round(CONCURRENCY * PAGE_EVENTS * SLOWER * span_s / (stage.events * LENGTH), 3)
    slow = flicker_contender(
        stage,
        stage.listing.of(events),
        events,
        siem_path=f"/ingest/after/{delay_s}",
        options=("--track",),
    )
    slow_s, course = _run(stage, slow)
    what = f"memory over {events:,} events, destination {SLOWER} times slower (--track)"
    slower = slow_s / events / (span_s / (stage.events * LENGTH))
    note = f"the destination answers after {delay_s} s; an event took {slower:.1f} times as long"
    rows.append(_row("memory-slow", what, course, note))
    return rows


def _run(stage: Stage, contender: Contender) -> tuple[float, Course]:
    """Run a contender to its end.

    Returns:
        Seconds that the work took, and the course of the memory.
    """
    directory = stage.new_directory()
    (argv,) = contender.prepare(directory)
    stage.api.forget()
    stage.siem.forget()
    with Child(argv, directory, name=contender.name) as child:
        child.wait()
    run = take_run(stage, contender, [child])
    return run.span_s, measure_course(child.samples, stage.siem.hits())


def measure_course(samples: list[Sample], posts: list[Hit]) -> Course:
    """Sort what was sampled by how much had been delivered.

    Args:
        samples: In the order of time.
        posts: Of the whole run; what was sampled after the last is left out.
    """
    ends = sorted(hit.ended_at for hit in posts)
    parts: list[list[int]] = [[] for _ in range(PARTS)]
    for sample in samples:
        done = bisect.bisect(ends, sample.at) / len(ends)
        if done < 1:
            parts[int(done * PARTS)].append(sample.rss_bytes)
    tenth = PARTS // 10
    around = [*parts[tenth - 1], *parts[tenth]] or parts[0]
    at_tenth = statistics.median(around)
    medians = [statistics.median(part) for part in parts if part]
    later = [statistics.median(part) for part in parts[tenth:] if part]
    return Course(medians, at_tenth, max(later) / at_tenth)


def _row(key: str, what: str, course: Course, note: str) -> Row:
    mb = f"{course.at_tenth / 1e6:.0f} MB at 10 %, {course.parts[-1] / 1e6:.0f} MB at the end"
    facts: dict[str, Any] = {"parts_mb": [round(part / 1e6, 1) for part in course.parts]}
    return Row(
        key,
        what,
        "itself at 10 %",
        course.growth,
        TO_REACH,
        better="less",
        note="; ".join(filter(None, [mb, note])),
        facts=facts,
    )
