"""A thousand sources that have nothing to do: what they cost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.children import Child
from bench.errors import BenchError
from bench.rows import Row
from bench.stage import flicker, write_config

if TYPE_CHECKING:
    from bench.stage import Stage

EVENTS = 10
START_LIMIT_S = 180.0
SETTLE_S = 15.0
"""Longer than a thread of Flicker's waits for work before it ends."""

WINDOW_S = 20.0


def measure_idle(stage: Stage) -> list[Row]:
    """Let many sources poll once and deliver, and watch them wait.

    Raises:
        BenchError: They do not settle, or poll while they are watched.
    """
    directory = stage.new_directory()
    write_config(directory, stage.fleet(f"/after/0.05/{stage.listing.of_few(EVENTS)}"))
    stage.api.forget()
    stage.siem.forget()
    with Child(flicker("--track"), directory, name="idle") as child:
        child.wait_until(
            lambda: stage.api.count() >= stage.sources and stage.siem.count() >= stage.sources,
            "a poll and a delivery of each source",
            START_LIMIT_S,
            every_s=0.5,
        )
        time.sleep(SETTLE_S)
        counts, cpu_s = (stage.api.count(), stage.siem.count()), child.cpu_s
        began_at = time.monotonic()
        time.sleep(WINDOW_S)
        share = (child.cpu_s - cpu_s) / (time.monotonic() - began_at)
        rss = child.rss_bytes
        if counts != (stage.api.count(), stage.siem.count()):
            raise BenchError("the idle sources polled or shipped while they were watched")
        child.stop()
    what = f"{stage.sources:,} idle sources (--track)"
    return [
        Row("idle-cpu", what, "one core", 100 * share, 5.0, "%", "less"),
        Row("idle-rss", "the same", "memory", rss / 1e6, 150.0, "MB", "less"),
    ]
