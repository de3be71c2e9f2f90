"""The table, and the file of results."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from bench.rows import Row

WORDS = {True: "yes", False: "NO", None: "-"}


def format_table(rows: list[Row]) -> str:
    """Give the table as it is printed, which Markdown reads too."""
    head = ("what", "against", "reached", "spread", "to reach", "met")
    lines = [
        (
            row.what,
            row.against,
            format_figure(row.reached, row.unit) if row.reached is not None else "not measured",
            _format_spread(row),
            _format_goal(row),
            WORDS[row.is_met],
        )
        for row in rows
    ]
    widths = [max(len(line[at]) for line in [head, *lines]) for at in range(len(head))]
    rule = tuple("-" * width for width in widths)
    table = "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in [head, rule, *lines]
    )
    notes = [f"- {row.what}, {row.against}: {row.note}" for row in rows if row.note]
    return "\n".join([table, *(["", *notes] if notes else [])])


def format_figure(value: float, unit: str) -> str:
    """Write a figure with as many digits as mean something."""
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}{'x' if unit == 'x' else f' {unit}'}"


def describe_machine() -> dict[str, Any]:
    """Give what the absolute figures depend on."""
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {
        "cores": os.cpu_count(),
        "cpu": cpu,
        "python": platform.python_version(),
        "system": platform.platform(),
        "load_at_start": [round(load, 2) for load in os.getloadavg()],
    }


def write_results(
    path: Path,
    rows: list[Row],
    *,
    date: datetime,
    machine: dict[str, Any],
    command: str,
    scale: dict[str, Any],
) -> None:
    """Write the file of results."""
    results = {
        "date": date.isoformat(timespec="seconds"),
        "machine": machine,
        "command": command,
        "scale": scale,
        "rows": [
            {
                "key": row.key,
                "what": row.what,
                "against": row.against,
                "reached": round(row.reached, 4) if row.reached is not None else None,
                "spread": [round(value, 4) for value in row.spread] if row.spread else None,
                "to_reach": row.to_reach,
                "unit": row.unit,
                "better": row.better,
                "is_met": row.is_met,
                "note": row.note,
                "facts": row.facts,
            }
            for row in rows
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")


def _format_spread(row: Row) -> str:
    if row.spread is None:
        return ""
    least, most = (format_figure(value, row.unit) for value in row.spread)
    return f"{least} to {most}"


def _format_goal(row: Row) -> str:
    if row.to_reach is None:
        return ""
    words = "or more" if row.better == "more" else "at most"
    figure = format_figure(row.to_reach, row.unit)
    return f"{figure} {words}" if row.better == "more" else f"{words} {figure}"
