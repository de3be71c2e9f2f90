"""The guard: three ratios, with a margin, in less than a minute."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bench.backfill import measure_backfill
from bench.report import format_figure
from bench.stage import Stage

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = 120_000
ROUNDS = 3
MARGIN = 0.7
"""What is left of a ratio where a busy machine has taken its share and no more."""


def check(results: Path) -> int:
    """Check the first three ratios of the table.

    Args:
        results: What the last whole run measured; where a ratio fell short of
            its goal there, no more than that is asked for.

    Returns:
        0 where all are reached, less the margin; 1 where one is not.
    """
    known = _read_ratios(results)
    with Stage(EVENTS, ROUNDS, sources=1) as stage:
        rows = measure_backfill(stage)
    is_good = True
    for row in rows:
        if row.reached is None or row.to_reach is None:
            continue
        floor = min(row.to_reach, known.get(row.key, row.to_reach)) * MARGIN
        is_reached = row.reached >= floor
        is_good = is_good and is_reached
        print(
            f"{'ok' if is_reached else 'FAILED'}: {format_figure(row.reached, row.unit)} of the "
            f"{row.against}; at least {format_figure(floor, row.unit)} is asked for, and "
            f"{format_figure(row.to_reach, row.unit)} is the goal"
        )
    if not is_good:
        print("bench-quick: Flicker has become slower; `make bench` and a profile tell where")
    return 0 if is_good else 1


def _read_ratios(results: Path) -> dict[str, float]:
    try:
        rows = json.loads(results.read_text())["rows"]
    except FileNotFoundError:
        return {}
    return {row["key"]: row["reached"] for row in rows if row["reached"] is not None}
