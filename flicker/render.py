"""From events to outgoing records, and from records to a request's body."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from flicker.items import EventPage, Record, RecordPage
from flicker.timefmt import format_rfc3339_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from flicker.settings import WireFormat

CONTENT_TYPES: dict[WireFormat, str] = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
}

_NO_INSTANT = b',"timestamp":null,"message":'
_EVENT = b',"event":'


def compile_renderer(source_name: str) -> Callable[[EventPage], RecordPage]:
    """Compile the step from a page of events to a page of records.

    A record is `{"source", "id", "timestamp", "message", "event"}`, its event
    the vendor's own bytes.
    """
    head = b'{"source":' + msgspec.json.encode(source_name) + b',"id":'
    encode = msgspec.json.Encoder().encode
    join = b"".join

    def when_of(text: str | None) -> bytes:
        return _NO_INSTANT if text is None else f',"timestamp":"{text}","message":'.encode()

    def render(page: EventPage) -> RecordPage:
        events = page.events
        texts = format_rfc3339_all([event.timestamp_ns for event in events])
        records = [
            Record(
                event.identity,
                join(
                    (head, encode(event.id), when_of(text), event.message, _EVENT, event.raw, b"}")
                ),
            )
            for event, text in zip(events, texts, strict=True)
        ]
        return RecordPage(page.source, records)

    return render


def batch_body(records: list[Record], form: WireFormat) -> bytes:
    """Assemble the body of one request.

    Args:
        records: At least one.
        form: `json` is one array, `ndjson` one object a line. A line break
            inside an event can only stand between its tokens, where a space
            means the same.
    """
    if form == "json":
        return b"[" + b",".join([record.body for record in records]) + b"]"
    lines = [record.body.replace(b"\r", b" ").replace(b"\n", b" ") for record in records]
    return b"\n".join(lines) + b"\n"
