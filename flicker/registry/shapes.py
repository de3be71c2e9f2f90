"""The shapes of the states in a snapshot: plain data may still be the wrong data."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from flicker.errors import RegistryError
from flicker.events import IDENTITY_BYTES
from flicker.position import check_version, load_position
from flicker.registry.partitions import BUFFER_STEP, POLL_STEP, SHIP_STEP
from flicker.registry.places import view_position

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from flicker.pagination import Place
    from flicker.position import Scan
    from flicker.registry.partitions import StateKey

INSTANT_BYTES = 8
"""Of an instant in a dedup window, and of a digest in a scan's loop guard."""

_PLACE_TYPES: dict[str, type | tuple[type, ...]] = {
    "top": type(None),
    "offset": int,
    "page": int,
    "cursor": str,
    "url": str,
}
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, OSError)


def check_states(directory: Path, states: Mapping[StateKey, Any]) -> None:
    """Check that states are as Flicker writes them, before Bytewax hands them out.

    Args:
        directory: Where they were read, for messages.
        states: Plain builtins by step and source.

    Raises:
        RegistryError: One is of another version, or has another shape.
    """
    for key, state in states.items():
        check_state(directory, key, state)


def check_state(directory: Path, key: StateKey, state: Any) -> None:
    """Check one state, as `check_states` does.

    Raises:
        RegistryError: As there.
    """
    step_id, name = key
    check_version(state, name)
    check = _CHECKS.get(step_id)
    if check is None:
        return
    try:
        check(state, name)
    except _MALFORMED as error:
        message = (
            f"the registry {directory} holds state that Flicker did not write (step "
            f"{step_id}, source {name!r}: {_describe(error)}). Restore it from a backup, or "
            "delete it to start afresh"
        )
        raise RegistryError(message) from None


def _describe(error: Exception) -> str:
    # What others raise may quote the state, which holds events.
    if isinstance(error, KeyError):
        return f"no {error.args[0]!r}"
    return str(error) if isinstance(error, _ShapeError) else type(error).__name__


class _ShapeError(ValueError):
    """Says which part is wrong; quotes nothing of it."""


def _require(is_right: bool, part: str) -> None:
    if not is_right:
        message = f"{part} is not what it should be"
        raise _ShapeError(message)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_position(state: dict[str, Any], name: str) -> None:
    _check_text(state["api"], "'api'")
    _check_window(state["seen"], "'seen'")
    _check_window(state.get("fetched", [b""] * 6), "'fetched'")
    # The windows may hold a million events, and their form is checked by now.
    empty = {"seen": [b""] * 6, "fetched": [b""] * 6}
    position = load_position({**state, **empty}, name, None, None)
    for entry in position.pending:
        _check_identity(entry.identity)
        _require(isinstance(entry.url, str), "'pending'")
        _require(entry.timestamp_ns is None or _is_int(entry.timestamp_ns), "'pending'")
    for part in (position.last_timestamp_ns, position.start_ns, position.swept_ns):
        _require(part is None or _is_int(part), "an instant")
    _require(_is_int(position.rises) and _is_int(position.falls), "'rises' or 'falls'")
    _require(isinstance(position.shifts, bool), "'shifts'")
    _require(_is_int(position.most_entries), "'most_entries'")
    _check_text(position.place_since, "'place_since'")
    _check_identity(position.anchor)
    _check_place(position.place)
    if position.scan is not None:
        _check_scan(position.scan)
        _require(isinstance(state["scan"]["met"], bytes), "'met'")
        _require(len(state["scan"]["met"]) % INSTANT_BYTES == 0, "'met'")
    view_position(state)


def _check_window(packed: Any, part: str) -> None:
    _require(isinstance(packed, list) and len(packed) == 6, part)
    for identities, instants in zip(packed[::2], packed[1::2], strict=True):
        _require(isinstance(identities, bytes) and isinstance(instants, bytes), part)
        count, rest = divmod(len(identities), IDENTITY_BYTES)
        _require(not rest and len(instants) == INSTANT_BYTES * count, part)


def _check_scan(scan: Scan) -> None:
    for place in (scan.place, scan.last_place, scan.check_place, scan.resume_place):
        _check_place(place)
    for anchor in (scan.last_anchor, scan.check_anchor):
        _check_identity(anchor)
    _check_text(scan.since, "'since'")
    _check_text(scan.until, "'until'")
    counts = (scan.started_ns, scan.falls, scan.empty_pages, scan.repeats)
    _require(all(map(_is_int, counts)), "a number of the scan")
    for number in (
        scan.newest_ns,
        scan.since_ns,
        scan.until_ns,
        scan.window_end_ns,
        scan.last_entries,
        scan.entries_again,
        scan.full_entries,
        scan.latest_ns,
    ):
        _require(number is None or _is_int(number), "a number of the scan")
    flags = (scan.first_request, scan.is_probing, scan.rises)
    _require(all(isinstance(flag, bool) for flag in flags), "a flag of the scan")


def _check_place(place: Place | None) -> None:
    if place is None:
        return
    expected = _PLACE_TYPES.get(place.kind)
    _require(expected is not None and not isinstance(place.value, bool), "a place")
    _require(isinstance(place.value, expected or ()), "a place")


def _check_text(text: str | None, part: str) -> None:
    _require(text is None or isinstance(text, str), part)


def _check_identity(identity: bytes | None) -> None:
    _require(identity is None or _is_identity(identity), "an anchor")


def _is_identity(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) == IDENTITY_BYTES


def _check_buffer(state: dict[str, Any], _: str) -> None:
    _check_text(state["source"], "'source'")
    records, first_at = state["records"], state["first_at"]
    _require(isinstance(records, list), "'records'")
    for identity, body in records:
        _require(_is_identity(identity) and isinstance(body, bytes), "a record")
    _require(not records or isinstance(state["source"], str), "'source'")
    _require(first_at is not None or not records, "'first_at'")
    if first_at is not None:
        _require(isinstance(first_at, (int, float)), "'first_at'")
        datetime.fromtimestamp(first_at, timezone.utc)


def _check_outbox(state: dict[str, Any], _: str) -> None:
    _check_text(state["endpoint"], "'endpoint'")
    segment, delivered, batches = state["segment"], state["delivered"], state["batches"]
    _require(_is_int(segment) and segment >= 0, "'segment'")
    _require(isinstance(delivered, bytes), "'delivered'")
    _require(len(delivered) % IDENTITY_BYTES == 0, "'delivered'")
    _require(isinstance(batches, list), "'batches'")
    for identities, bodies in batches:
        _require(isinstance(identities, bytes) and isinstance(bodies, list), "a batch")
        _require(len(identities) == IDENTITY_BYTES * len(bodies), "a batch")
        _require(all(isinstance(body, bytes) for body in bodies), "a batch")


_CHECKS = {POLL_STEP: _check_position, BUFFER_STEP: _check_buffer, SHIP_STEP: _check_outbox}
