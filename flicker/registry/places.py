"""What people read of a position.

A module of its own: the process that reads the registry needs no more of a
position than this, and nothing of what reads events.
"""

from __future__ import annotations

from typing import Any

from flicker.timefmt import format_rfc3339


def view_position(state: dict[str, Any]) -> dict[str, Any]:
    """Give the part of a position that people read, as the registry's JSON shows it."""
    last_timestamp_ns = state["last_timestamp"]
    scan = state["scan"]
    place = scan["place"] if scan is not None else state["place"]
    kind, value = place if place is not None else (None, None)
    view: dict[str, Any] = {
        "last_timestamp": None if last_timestamp_ns is None else format_rfc3339(last_timestamp_ns),
        "cursor": _hide_marks(str(value)) if kind in {"cursor", "url"} else None,
    }
    if kind in {"offset", "page"}:
        view[kind] = value
    pending = state.get("pending")
    view["scanning"] = scan is not None or bool(pending)
    if pending:
        view["pending_entries"] = len(pending)
    return view


def _hide_marks(text: str) -> str:
    return "***".join(text.split("\0")[::2])
