"""The backfill: as many events as there are, from one listing to one destination."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from bench.contest import Contender, Run, compare, compete, describe
from bench.errors import BenchError
from bench.loops import UNWANTED, WANTED
from bench.pages import PAGE_EVENTS
from bench.rows import Row
from bench.stage import Stage, flicker, loop, write_config

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = "plain loop (requests, .json(), json.dumps)"
TUNED = "tuned loop (raw.read, orjson, one thread)"
RELAY = "relay (copies bodies, parses nothing)"


def _with_source(
    source: dict[str, Any], directory: Path, *, options: tuple[str, ...]
) -> list[list[str]]:
    write_config(directory, [source])
    return [flicker("--once", *options)]


def flicker_contender(
    stage: Stage,
    path: str,
    events: int,
    /,
    *,
    name: str = "flicker",
    siem_path: str = "/ingest",
    options: tuple[str, ...] = (),
    is_counted: bool = True,
    **changes: Any,
) -> Contender:
    """Make a contender of Flicker, with changes to the source's configuration."""
    source = stage.source(path, siem_path, **changes)
    return Contender(
        name,
        partial(_with_source, source, options=options),
        posts=-(-events // source["buffer_size"]) if is_counted else None,
        least_bytes=events * stage.listing.event_bytes if is_counted else 0,
    )


def loop_contender(
    stage: Stage,
    name: str,
    path: str,
    events: int,
    /,
    *,
    batch_size: int = 1000,
    siem_path: str = "/ingest",
    is_counted: bool = True,
) -> Contender:
    """Make a contender of one of the loops."""
    argv = loop(name, stage.api.url(path), stage.siem.url(siem_path), batch_size=batch_size)
    return Contender(
        name,
        lambda _directory: [argv],
        posts=-(-events // batch_size) if is_counted else None,
        # `json.dumps` writes what is not ASCII in more bytes, and orjson floats in fewer.
        least_bytes=int(events * stage.listing.event_bytes * 0.98) if is_counted else 0,
    )


def measure_backfill(stage: Stage) -> list[Row]:
    """Compare with the loops and the relay: the first three rows."""
    path = stage.listing.of(stage.events)
    runs = compete(
        stage,
        [
            flicker_contender(stage, path, stage.events),
            *(
                loop_contender(stage, name, path, stage.events)
                for name in ("plain", "tuned", "relay")
            ),
        ],
    )
    return backfill_rows(stage, runs)


def backfill_rows(stage: Stage, runs: dict[str, list[Run]]) -> list[Row]:
    """Make the first three rows."""
    what = f"backfill, {stage.events:,} events, page 1,000, buffer 1,000"
    facts = describe(runs, stage.events)
    rows = []
    for key, against, to_reach in (
        ("plain", PLAIN, 5.0),
        ("tuned", TUNED, 2.0),
        ("relay", RELAY, 0.40),
    ):
        ratio, spread = compare(runs["flicker"], runs[key])
        rows.append(
            Row(f"backfill-{key}", what, against, ratio, to_reach, spread=spread, facts=facts)
        )
        # Once is enough in the file of results.
        what, facts = "the same", {}
    return rows


def measure_small_batches(stage: Stage) -> list[Row]:
    """Compare with the plain loop where a batch is 100 events."""
    path = stage.listing.of(stage.events)
    runs = compete(
        stage,
        [
            flicker_contender(stage, path, stage.events, buffer_size=100),
            loop_contender(stage, "plain", path, stage.events, batch_size=100),
        ],
    )
    ratio, spread = compare(runs["flicker"], runs["plain"])
    facts = describe(runs, stage.events)
    what = "backfill with buffer 100"
    against = "plain loop with 100"
    return [Row("small-batches", what, against, ratio, 3.0, spread=spread, facts=facts)]


def measure_track(stage: Stage) -> list[Row]:
    """Compare a run that remembers, with a snapshot each second, with one that does not."""
    path = stage.listing.of(stage.events)
    runs = compete(
        stage,
        [
            flicker_contender(stage, path, stage.events, name="tracked", options=("--track",)),
            flicker_contender(stage, path, stage.events),
        ],
    )
    ratio, spread = compare(runs["tracked"], runs["flicker"])
    facts = describe(runs, stage.events)
    what = "backfill with --track, a snapshot each second"
    return [Row("track", what, "without", ratio, 0.95, spread=spread, facts=facts)]


def measure_filters(stage: Stage) -> list[Row]:
    """Compare with the plain loop where both filter and compress."""
    path = stage.listing.of(stage.events)
    runs = compete(
        stage,
        [
            flicker_contender(
                stage,
                path,
                stage.events,
                is_counted=False,
                match_on=[WANTED.pattern],
                exclude_on=[UNWANTED.pattern],
                destination={"compression": True},
            ),
            loop_contender(stage, "filtered", path, stage.events, is_counted=False),
        ],
    )
    _check_equal_batches(runs)
    ratio, spread = compare(runs["flicker"], runs["filtered"])
    facts = describe(runs, stage.events)
    what = "backfill with two filters and gzip"
    against = "plain loop doing the same"
    return [Row("filters", what, against, ratio, 3.0, spread=spread, facts=facts)]


def _check_equal_batches(runs: dict[str, list[Run]]) -> None:
    counts = {run.posts for done in runs.values() for run in done}
    if len(counts) > 1:
        raise BenchError(
            f"the contenders shipped {sorted(counts)} batches, so they filter differently"
        )


def measure_far_destination(stage: Stage) -> list[Row]:
    """Compare with one request at a time where each takes 100 ms."""
    events = max(PAGE_EVENTS * 5, stage.events // 50 // PAGE_EVENTS * PAGE_EVENTS)
    path = stage.listing.of(events)
    far = "/ingest/after/0.1"
    runs = compete(
        stage,
        [
            flicker_contender(stage, path, events, siem_path=far, buffer_size=100),
            loop_contender(stage, "plain", path, events, siem_path=far, batch_size=100),
        ],
    )
    ratio, spread = compare(runs["flicker"], runs["plain"])
    facts = describe(runs, events)
    what = f"destination 100 ms away, buffer 100, default settings ({events:,} events)"
    against = "one request at a time"
    return [Row("far-destination", what, against, ratio, 4.0, spread=spread, facts=facts)]
