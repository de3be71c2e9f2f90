"""From events to outgoing records, and from records to a request's body."""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING

import msgspec

from flicker.events import Event, Record
from flicker.items import EventPage, RecordPage

if TYPE_CHECKING:
    from collections.abc import Callable

    from flicker.events import Readings
    from flicker.settings import WireFormat

CONTENT_TYPES: dict[WireFormat, str] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
}

_join = b"".join


def compile_envelope(source_name: str) -> Callable[[Readings], list[Event]]:
    """Compile the step from what was read of events to events.

    A record is `{"source", "id", "timestamp", "message", "event"}`, its event
    the vendor's own bytes. It is made where a page is read, which may be another process.
    """
    source = b'{"source":' + msgspec.json.encode(source_name) + b',"id":'

    def envelop(readings: Readings) -> list[Event]:
        bodies = map(
            _join,
            zip(
                repeat(source),
                readings.ids,
                repeat(b',"timestamp":'),
                readings.timestamps,
                repeat(b',"message":'),
                readings.messages,
                repeat(b',"event":'),
                readings.raws,
                repeat(b"}"),
            ),
        )
        lengths = map(len, readings.raws)
        return list(map(Event, readings.identities, bodies, readings.instants_ns, lengths))

    return envelop


def render_page(page: EventPage) -> RecordPage:
    """Give the records of a page's events, which were made when it was read."""
    return RecordPage(page.source, page.events)


def batch_body(records: list[Record], form: WireFormat) -> bytes:
    """Assemble the body of one request.

    Args:
        records: At least one.
        form: `json` is one array, `ndjson` one object a line. A line break
            inside an event can only stand between its tokens, where a space
            means the same.
    """
    if form == "json":
        bodies = [record.body for record in records]
        # Around the whole, each bracket would copy it once more.
        bodies[0] = b"[" + bodies[0]
        bodies[-1] += b"]"
        return b",".join(bodies)
    lines = [record.body.replace(b"\r", b" ").replace(b"\n", b" ") for record in records]
    return b"\n".join(lines) + b"\n"
