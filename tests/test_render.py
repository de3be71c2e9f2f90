"""From events to records, and to a request's body."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flicker.decode import DecodeOptions, PageDecoder
from flicker.events import Reading, Readings
from flicker.items import EventPage
from flicker.render import batch_body, compile_envelope, render_page

NOON_NS = 1_735_732_800_000_000_000


def render(body: bytes) -> list[bytes]:
    decoder = PageDecoder(
        DecodeOptions(source_name='ven"dor', timestamp_field="ts", message_field="m", id_field="id")
    )
    page = render_page(EventPage("v", decoder.decode(body).events))
    return [record.body for record in page.records]


def test_a_record_is_the_event_in_an_envelope() -> None:
    """T45 T48 T51 the event's own bytes; null where there is no timestamp or message."""
    event = b'{"id": 7, "ts":"2025-01-01T13:00:00.5+01:00","m":"hi","n":9007199254740993.10 }'
    first, second = render(b"[" + event + b',{"x":1e400}]')
    assert first == (
        b'{"source":"ven\\"dor","id":"7","timestamp":"2025-01-01T12:00:00.500Z",'
        b'"message":"hi","event":' + event + b"}"
    )
    assert second.endswith(b'"timestamp":null,"message":null,"event":{"x":1e400}}')
    assert len(json.loads(second)["id"]) == 32


@pytest.mark.parametrize("value", [r'"\ud800"', '"\u2028"', r'"\u0000\n"', '"é😀"', r'"\"\\"'])
def test_any_text_makes_a_readable_record(value: str) -> None:
    """T46 as id, as message and inside the event."""
    (body,) = render(f'[{{"id":{value},"m":{value}}}]'.encode())
    record = json.loads(body)
    assert record["message"] == record["event"]["m"] == json.loads(value)
    assert record["id"] == json.loads(value) or value == r'"\ud800"'


def test_a_line_break_between_tokens_splits_no_line() -> None:
    """T46 nor does a line separator inside a string."""
    event = '{\r\n"a":"x\u2028\\ny",\n"b":1}'.encode()
    readings = [Reading(b"i" * 16, b'"i"', NOON_NS, b"null", b"null", event)] * 2
    events = compile_envelope("v")(Readings.of(readings))
    records = render_page(EventPage("v", events)).records
    body = batch_body(records, "ndjson")
    assert body.endswith(b"\n")
    lines = body[:-1].split(b"\n")
    assert [json.loads(line)["event"] for line in lines] == [{"a": "x\u2028\ny", "b": 1}] * 2
    assert b"\r" not in body


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers()), min_size=1))
def test_both_forms_hold_every_event(events: list[dict[str, object]]) -> None:
    """T45 T46 parsed again, each event is what it was."""
    decoded = PageDecoder(DecodeOptions()).decode(json.dumps(events).encode()).events
    records = render_page(EventPage("v", decoded)).records
    assert [record["event"] for record in json.loads(batch_body(records, "json"))] == events
    lines = batch_body(records, "ndjson").split(b"\n")
    assert [json.loads(line)["event"] for line in lines if line] == events
