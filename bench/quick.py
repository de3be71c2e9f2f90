"""The guard: three ratios, with a margin, in less than a minute."""

from __future__ import annotations

from bench.backfill import measure_backfill
from bench.report import format_figure
from bench.stage import Stage

EVENTS = 60_000
ROUNDS = 3
MARGIN = 0.8
"""What a ratio may lose to a busy machine before it counts as lost."""


def check() -> int:
    """Check the first three ratios of the table.

    Returns:
        0 where all are reached, less the margin; 1 where one is not.
    """
    with Stage(EVENTS, ROUNDS, sources=1) as stage:
        rows = measure_backfill(stage)
    is_good = True
    for row in rows:
        if row.reached is None or row.to_reach is None:
            continue
        floor = row.to_reach * MARGIN
        is_reached = row.reached >= floor
        is_good = is_good and is_reached
        print(
            f"{'ok' if is_reached else 'FAILED'}: {format_figure(row.reached, row.unit)} of the "
            f"{row.against}; at least {format_figure(floor, row.unit)} is asked for"
        )
    if not is_good:
        print("bench-quick: Flicker has become slower; `make bench` and a profile tell where")
    return 0 if is_good else 1
