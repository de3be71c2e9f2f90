"""Two processes against one, for the same work."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench.children import PYTHON
from bench.contest import Contender, compare, compete, describe
from bench.nginx import free_port
from bench.pages import PAGE_EVENTS
from bench.rows import Row
from bench.stage import write_config

if TYPE_CHECKING:
    from pathlib import Path

    from bench.stage import Stage

SOURCES = 8
FLOW = "dataflows.api_tailing:get_flow('config.yaml')"


def measure_cluster(stage: Stage) -> list[Row]:
    """Compare two processes of one worker with one process of one worker."""
    each = max(PAGE_EVENTS, stage.events // SOURCES // PAGE_EVENTS * PAGE_EVENTS)
    runs = compete(stage, [_contender(stage, each, processes) for processes in (1, 2)])
    ratio, spread = compare(runs[_name(2)], runs[_name(1)])
    return [
        Row(
            "cluster",
            f"2 processes x 1 worker, {SOURCES} sources of {each:,} events",
            "1 process x 1 worker",
            ratio,
            1.3,
            spread=spread,
            note="the API's and the destination's nginx run on the same cores; both ways are "
            "started by bytewax.run and stopped when all is delivered",
            facts=describe(runs, each * SOURCES),
        )
    ]


def _name(processes: int) -> str:
    return f"processes-{processes}"


def _contender(stage: Stage, each: int, processes: int) -> Contender:
    path = stage.listing.of(each)
    sources = [stage.source(path, name=f"backfill-{number}") for number in range(SOURCES)]
    events = each * SOURCES
    return Contender(
        _name(processes),
        partial(_prepare, sources, processes),
        posts=events // PAGE_EVENTS,
        least_bytes=events * stage.listing.event_bytes,
        is_endless=True,
    )


def _prepare(sources: list[dict[str, object]], processes: int, directory: Path) -> list[list[str]]:
    write_config(directory, sources)
    command = [PYTHON, "-m", "bytewax.run", FLOW]
    if processes == 1:
        return [command]
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(processes))
    return [[*command, "-i", str(index), "-a", addresses] for index in range(processes)]
