"""The command line of `make bench` and `make bench-quick`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from bench import backfill, cluster, idle, latency, memory, quick, resume, schedule, snapshots
from bench.children import ROOT
from bench.errors import BenchError
from bench.nginx import install
from bench.peers import race
from bench.picture import write_picture
from bench.report import describe_machine, format_table, write_results
from bench.rows import Row
from bench.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = ROOT / "bench" / "results" / "latest.json"
EVENTS = 1_000_000
SOURCES = 1_000

MEASUREMENTS: dict[str, Callable[[Stage], list[Row]]] = {
    "backfill": backfill.measure_backfill,
    "small-batches": backfill.measure_small_batches,
    "track": backfill.measure_track,
    "filters": backfill.measure_filters,
    "far-destination": backfill.measure_far_destination,
    "cluster": cluster.measure_cluster,
    "schedule": schedule.measure_schedule,
    "idle": idle.measure_idle,
    "resume": resume.measure_resume,
    "snapshots": snapshots.measure_snapshots,
    "latency": latency.measure_latency,
    "memory": memory.measure_memory,
    "peers": race.measure_peers,
}


def main() -> int:
    """Run what was asked for.

    Returns:
        0 where it ran, whatever it measured; 1 where something could not be
        measured, or a guarded ratio is too low.
    """
    args = _parse_arguments()
    # The servers are ended by a `finally`, which a bare SIGTERM would not run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        install()
        if args.quick:
            return quick.check(args.output)
        return _measure(args)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def _measure(args: argparse.Namespace) -> int:
    machine = describe_machine()
    rows: list[Row] = []
    with Stage(args.events, args.rounds, args.sources) as stage:
        for name in args.only or MEASUREMENTS:
            began_at = time.monotonic()
            print(f"{name} ...", end=" ", flush=True)
            rows += _try(name, stage)
            print(f"{time.monotonic() - began_at:.0f} s", flush=True)
    command = f"python -m bench {' '.join(sys.argv[1:])}".strip()
    scale = {"events": args.events, "rounds": args.rounds, "sources": args.sources}
    date = datetime.now(timezone.utc)
    write_results(args.output, rows, date=date, machine=machine, command=command, scale=scale)
    caption = (
        f"{machine['cores']} cores, {machine['cpu']}, Python {machine['python']}, {date:%Y-%m-%d}"
    )
    write_picture(args.output.with_suffix(".svg"), rows, caption=caption)
    print(f"\n{format_table(rows)}\n\nwritten to {args.output}")
    return 1 if any(row.reached is None for row in rows) else 0


def _try(name: str, stage: Stage) -> list[Row]:
    try:
        return MEASUREMENTS[name](stage)
    except BenchError as error:
        return [Row(name, name, "", None, None, note=str(error))]


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--events",
        type=int,
        default=EVENTS,
        help=f"events of the backfill; all else scales with it ({EVENTS:,})",
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contender (3)")
    parser.add_argument("--sources", type=int, default=SOURCES, help=f"of the fleets ({SOURCES:,})")
    parser.add_argument(
        "--only", nargs="+", choices=MEASUREMENTS, metavar="NAME", help=", ".join(MEASUREMENTS)
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="file of results")
    parser.add_argument("--quick", action="store_true", help="check three ratios and nothing else")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
