"""What a snapshot costs, from one source to a thousand."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from bytewax.recovery import RecoveryConfig
from bytewax.testing import cluster_main

from bench.children import PYTHON, Child
from bench.errors import BenchError
from bench.rows import Row
from bench.windows import REGISTRY, fill_registry
from dataflows.api_tailing import get_flow

if TYPE_CHECKING:
    from pathlib import Path

    from bench.stage import Stage

COUNTS = (1, 10, 100, 1000)
EVENTS = 10
START_LIMIT_S = 180.0
SETTLE_S = 3.0
WINDOW_S = 6.0
NEVER_S = 86400.0
RESOLUTION_S = 0.001
"""Of a snapshot's processor time: what is less counts as this."""

EVERY_S = 0.1
"""Oftener than Flicker does, so that more is seen of it. Sources that wait wake up four
times a second, and there is no snapshot in between."""

TOLERANCE = 1.1
"""What a machine may make of something that is linear."""


class Cost(NamedTuple):
    """Of one snapshot.

    Attributes:
        cpu_s: Beyond what the same process uses when it takes none.
        per_s: Snapshots that are taken in a second, of the one that is asked for.
    """

    sources: int
    snapshot_bytes: int
    rows: int
    cpu_s: float
    per_s: float


class Snapshot(NamedTuple):
    """One that is in the registry."""

    epoch: int
    bytes: int
    rows: int


class Watched(NamedTuple):
    """What was seen of a process, and of its last snapshot."""

    cpu_s: float
    snapshots: int
    bytes: int
    rows: int


def measure_snapshots(stage: Stage) -> list[Row]:
    """Take snapshots of sources that wait, and compare with none."""
    largest = stage.sources
    costs = [_measure(stage, count) for count in COUNTS if count < largest]
    costs.append(_measure(stage, largest))
    facts = {"snapshots": [cost._asdict() for cost in costs]}
    rows = []
    what = f"bytes of a snapshot, {costs[0].sources:,} to {largest:,} sources"
    growth = _growth(costs[0].snapshot_bytes, costs[-1].snapshot_bytes, 1, largest)
    note = "; ".join(f"{cost.sources:,}: {cost.snapshot_bytes:,} bytes" for cost in costs)
    rows.append(Row("snapshot-bytes", what, "linear", growth, TOLERANCE, better="less", note=note))
    before, last = costs[-2], costs[-1]
    what = f"seconds of a snapshot, {before.sources:,} to {last.sources:,} sources"
    growth = _growth(before.cpu_s, last.cpu_s, before.sources, last.sources)
    each = [
        f"{cost.sources:,}: {cost.cpu_s * 1000:.1f} ms, {cost.per_s:.1f} a second" for cost in costs
    ]
    note = (
        f"of the processor, beyond a run that takes none, asked for every {EVERY_S} s; what it "
        f"waits for the disk shows only in how many come in a second. {'; '.join(each)}"
    )
    rows.append(
        Row(
            "snapshot-seconds",
            what,
            "linear",
            growth,
            TOLERANCE,
            better="less",
            note=note,
            facts=facts,
        )
    )
    return rows


def _growth(before: float, after: float, fewer: int, more: int) -> float:
    """Give how many times as much each source costs where there are more."""
    return (after / more) / (before / fewer)


def _measure(stage: Stage, count: int) -> Cost:
    sources = stage.fleet(f"/after/0.05/{stage.listing.of_few(EVENTS)}")[:count]
    directory = stage.new_directory()
    fill_registry(stage, directory, sources)
    without = _watch(stage, directory, count, NEVER_S)
    watched = _watch(stage, directory, count, EVERY_S)
    shutil.rmtree(directory)
    if not watched.snapshots:
        raise BenchError(f"{count} sources: no snapshot was taken in {WINDOW_S:.0f} s")
    cpu_s = max(RESOLUTION_S, (watched.cpu_s - without.cpu_s) / watched.snapshots)
    return Cost(count, watched.bytes, watched.rows, round(cpu_s, 5), watched.snapshots / WINDOW_S)


def _watch(stage: Stage, directory: Path, count: int, every_s: float) -> Watched:
    """Run until all sources wait, and watch them."""
    stage.api.forget()
    argv = [PYTHON, "-m", "bench.snapshots", str(every_s)]
    with Child(argv, directory, {"BYTEWAX_RECOVERY_DIRECTORY": REGISTRY}, "snapshots") as child:
        child.wait_until(lambda: stage.api.count() >= count, "a poll of each source", START_LIMIT_S)
        time.sleep(SETTLE_S)
        first, cpu_s = _read_last(directory / REGISTRY).epoch, child.cpu_s
        time.sleep(WINDOW_S)
        cpu_s = child.cpu_s - cpu_s
        last = _read_last(directory / REGISTRY)
        child.stop()
    return Watched(cpu_s, last.epoch - first, last.bytes, last.rows)


def _read_last(registry: Path) -> Snapshot:
    """Read what the last snapshot wrote; rows that it did not write are older."""
    uri = f"file:{registry / 'part-0.sqlite3'}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10.0)) as partition:
        row = partition.execute(
            "SELECT snap_epoch, SUM(LENGTH(ser_change)), COUNT(*) FROM snaps"
            " WHERE snap_epoch = (SELECT MAX(snap_epoch) FROM snaps)"
        ).fetchone()
    return Snapshot(*row)


def main() -> None:
    """Run Flicker on the registry that BYTEWAX_RECOVERY_DIRECTORY names.

    Neither Flicker's command nor Bytewax's takes an interval of less than a second.
    """
    cluster_main(
        get_flow("config.yaml"),
        [],
        0,
        epoch_interval=timedelta(seconds=float(sys.argv[1])),
        recovery_config=RecoveryConfig(REGISTRY, timedelta(0)),
        worker_count_per_proc=1,
    )


if __name__ == "__main__":
    main()
