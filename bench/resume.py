"""The start of a process that has a thousand sources to resume."""

from __future__ import annotations

import shutil
import statistics
from typing import TYPE_CHECKING

from bench.children import Child
from bench.rows import Row
from bench.stage import flicker
from bench.windows import fill_registry

if TYPE_CHECKING:
    from pathlib import Path

    from bench.stage import Stage

EVENTS = 10
START_LIMIT_S = 180.0


def measure_resume(stage: Stage) -> list[Row]:
    """Start with full dedup windows and wait for the first request at the API."""
    fleet = stage.fleet(f"/after/0.05/{stage.listing.of_few(EVENTS)}")
    filled = stage.new_directory()
    identities = fill_registry(stage, filled, fleet)
    firsts, lasts = [], []
    for _ in range(stage.rounds):
        # The first poll makes the windows smaller, so each round has a copy.
        directory = stage.new_directory()
        shutil.copytree(filled, directory, dirs_exist_ok=True)
        first_s, last_s = _start(stage, directory)
        shutil.rmtree(directory)
        firsts.append(first_s)
        lasts.append(last_s)
    shutil.rmtree(filled)
    return [
        Row(
            "resume",
            f"resume with {stage.sources:,} sources, {identities:,} identities each",
            "start of the process to the first request",
            statistics.median(firsts),
            2.0,
            "s",
            "less",
            spread=(min(firsts), max(firsts)),
            note=f"all sources have asked after {statistics.median(lasts):.1f} s",
            facts={"first_s": firsts, "all_s": lasts, "identities": identities},
        )
    ]


def _start(stage: Stage, directory: Path) -> tuple[float, float]:
    """Start Flicker.

    Returns:
        Seconds to the first request, and until each source has sent one.
    """
    stage.api.forget()
    with Child(flicker("--track"), directory, name="resume") as child:
        child.wait_until(
            lambda: stage.api.count() >= stage.sources, "a poll of each source", START_LIMIT_S
        )
        hits = stage.api.hits()
        # It is killed at the end of the block: what it does then is not asked for.
        began = sorted(hit.began_at - child.started_at for hit in hits)
        return began[0], began[stage.sources - 1]
