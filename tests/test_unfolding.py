"""Events inside strings, and several of them in one record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from flicker.decode import DecodeOptions, Page, PageDecoder
from tests.outgoing import id_of, message_of

if TYPE_CHECKING:
    from flicker.events import Event

NOON_NS = 1_735_732_800_000_000_000
NOON = "2025-01-01T12:00:00Z"


def decode(*records: bytes, **fields: Any) -> Page:
    return PageDecoder(DecodeOptions(**fields)).decode(b"[" + b",".join(records) + b"]")


def events(*records: bytes, **fields: Any) -> list[Event]:
    return decode(*records, **fields).events


def wrapped(inner: str, **outer: Any) -> bytes:
    return json.dumps({**outer, "inner": inner}).encode()


# ------------------------------------------------------------- decode_field


def test_the_event_is_the_json_in_a_string() -> None:
    """T45 T46 its text as it was written, escapes of its own included."""
    text = '{ "n": 9007199254740993,\t"s":"\\ud800\\n\u2028", "f":1.50 }'
    page = decode(wrapped(text), decode_field="inner")
    assert [event.raw for event in page.events] == [text.encode()]
    assert page.undecoded == 0


def test_fields_are_looked_up_in_the_string_first_and_then_around_it() -> None:
    """T47 each on its own."""
    inner = f'{{"at":"{NOON}","m":null}}'
    (event,) = events(
        wrapped(inner, at="2024-01-01", m="outside", id="x1"),
        decode_field="inner",
        timestamp_field="at",
        message_field="m",
        id_field="id",
    )
    assert (event.timestamp_ns, message_of(event), id_of(event)) == (NOON_NS, b'"outside"', "x1")
    assert event.raw == inner.encode()


def test_parts_of_an_id_may_be_inside_and_around_the_string() -> None:
    """T06 whichever has them."""
    fields: dict[str, Any] = {"decode_field": "inner", "id_field": ["id", "v"]}
    (event,) = events(wrapped('{"v":2,"id":""}', id="x", v=1), **fields)
    assert id_of(event) == event.identity.hex()
    (event,) = events(wrapped('{"v":2}', id="x", v=1), **fields)
    assert id_of(event) == "x|2"


@pytest.mark.parametrize(
    "inner",
    ["", "no", "[1]", '"a"', "1", "null", '{"a":', '{"a":1}{"b":2}', '{},{"a":1}', "{}],[{}"],
)
def test_a_record_without_json_in_the_string_is_the_event(inner: str) -> None:
    """T41 T43 nothing is lost, and it is counted."""
    record = wrapped(inner, id="x")
    page = decode(record, wrapped('{"a":1}'), decode_field="inner", id_field="id")
    assert [event.raw for event in page.events] == [record, b'{"a":1}']
    assert (id_of(page.events[0]), page.undecoded) == ("x", 1)


@pytest.mark.parametrize(
    "record", [b'{"other":1}', b'{"inner":{"a":1}}', b'{"inner":null}', b'"a"']
)
def test_a_record_without_the_string_is_the_event(record: bytes) -> None:
    """T43 T48 such as a record of another kind in the same list."""
    page = decode(record, b"null", decode_field="inner")
    assert [event.raw for event in page.events] == [record]
    assert (page.undecoded, page.skipped) == (1, 1)


def test_json_in_a_string_is_made_valid_where_it_is_not() -> None:
    """T44 T46 no receiver takes NaN, and a lone surrogate stays one."""
    text = '{"a":NaN,"b":"x\ny"}'
    assert [e.raw for e in events(wrapped(text), decode_field="inner")] == [
        rb'{"a":null,"b":"x\u000ay"}'
    ]
    (event,) = events(rb'{"inner":"{\"a\":\"\ud800\"}"}', decode_field="inner")
    assert event.raw == rb'{"a":"\ud800"}'


def test_records_that_differ_around_the_same_string_are_two_events() -> None:
    """T08 what the vendor lists is what counts."""
    (one,), (two,) = (events(wrapped('{"a":1}', n=n), decode_field="inner") for n in (1, 2))
    assert one.identity != two.identity
    assert one.raw == two.raw


# ------------------------------------------------------------ explode_field


def part_id(record_id: str, event: Event) -> str:
    return f"{record_id}:{event.identity.hex()[:16]}"


def test_each_element_is_an_event_with_all_that_is_around_it() -> None:
    """T45 Google's reports: only the list is replaced, by one element each time."""
    record = b'{ "id":{"q":"7"}, "list": [ {"name":"a","n":1.50} , {"name":"b"} ],\n"x":"[]" }'
    found = events(record, explode_field="list", id_field="id.q", message_field="list.name")
    assert [event.raw for event in found] == [
        b'{ "id":{"q":"7"}, "list": {"name":"a","n":1.50},\n"x":"[]" }',
        b'{ "id":{"q":"7"}, "list": {"name":"b"},\n"x":"[]" }',
    ]
    assert [id_of(event) for event in found] == [part_id("7", event) for event in found]
    assert [message_of(event) for event in found] == [b'"a"', b'"b"']


def test_an_elements_timestamp_is_found_in_it() -> None:
    """T47 and the record's serves for all."""
    record = f'{{"at":"{NOON}","list":[{{"at":1735732801}},{{}}]}}'.encode()
    found = events(record, explode_field="list", timestamp_field="list.at")
    assert [event.timestamp_ns for event in found] == [NOON_NS + 1_000_000_000, None]
    found = events(record, explode_field="list", timestamp_field="at")
    assert [event.timestamp_ns for event in found] == [NOON_NS] * 2


def identities(*lists: str, **fields: Any) -> list[bytes]:
    records = [f'{{"id":"7","list":[{elements}]}}'.encode() for elements in lists]
    found = events(*records, explode_field="list", id_field="id", **fields)
    return [event.identity for event in found]


def test_an_element_is_known_wherever_it_comes_to_stand() -> None:
    """T06 T08 vendors add elements to a record; equal ones are as many as there are."""
    a, again, b = identities('"a","a","b"')
    assert len({a, again, b}) == 3
    assert identities('"new","b","a","a"')[1:] == [b, a, again]
    assert identities('"a"', '"a"') == [a, a]


def test_an_element_has_an_id_that_no_other_of_its_record_ever_had() -> None:
    """T06 a receiver that drops what has an id it has seen must not drop what is new."""
    before, now = (
        events(record, explode_field="l", id_field="id")
        for record in (b'{"id":"7","l":["a","a","b"]}', b'{"id":"7","l":["new","a","b","a"]}')
    )
    assert len({id_of(event) for event in now}) == 4
    shipped = {id_of(event): event.identity for event in before}
    assert {id_of(event): event.identity for event in now[1:]} == shipped


def test_elements_of_records_without_an_id_are_events_of_that_record() -> None:
    """T08 the same element in another record is another event, and so is an equal record's."""
    found = events(b'{"n":1,"l":[1]}', b'{"n":2,"l":[1]}', b'{"n":1,"l":[1]}', explode_field="l")
    assert len({event.identity for event in found}) == 3
    again = events(b'{"n":2,"l":[1]}', b'{"n":1,"l":[1]}', explode_field="l")
    assert [event.identity for event in again] == [found[1].identity, found[0].identity]
    assert [id_of(event) for event in again] == [id_of(found[1]), id_of(found[0])]


def test_an_id_inside_the_element_is_the_events_own() -> None:
    """T05 T07 and where an element has none, the record and its bytes are."""
    record = b'{"n":1,"l":[{"id":"a"},{"id":"b"},{"x":1},{"id":"a"}]}'
    found = events(record, explode_field="l", id_field="l.id")
    assert [id_of(event) for event in found[:2]] == ["a", "b"]
    assert id_of(found[2]).endswith(part_id("", found[2]))
    assert found[3].identity == found[0].identity
    other = events(b'{"n":2,"l":[{"id":"a"}]}', explode_field="l", id_field="l.id")
    assert other[0].identity == found[0].identity


@pytest.mark.parametrize(
    "record",
    [b'{"id":"7"}', b'{"id":"7","l":[]}', b'{"id":"7","l":null}', b'{"l":{"a":[1]}}', b'"a"'],
)
def test_a_record_without_elements_is_one_event(record: bytes) -> None:
    """T42 T43 nothing is lost."""
    assert events(record, explode_field="l", id_field="id") == events(record, id_field="id")


def test_a_string_is_decoded_before_its_list_is_exploded() -> None:
    """T47 the fields around the string serve for all of its events."""
    page = decode(
        wrapped('{"l":[{"m":"a"},{"m":"b"}]}', id="7", at=NOON, l={"m": "c"}),
        decode_field="inner",
        explode_field="l",
        timestamp_field="at",
        message_field="l.m",
        id_field="id",
    )
    assert [event.raw for event in page.events] == [b'{"l":{"m":"a"}}', b'{"l":{"m":"b"}}']
    assert [message_of(event) for event in page.events] == [b'"a"', b'"b"']
    assert [id_of(event) for event in page.events] == [part_id("7", event) for event in page.events]
    assert [event.timestamp_ns for event in page.events] == [NOON_NS] * 2
    assert (page.entries, page.skipped, page.undecoded) == (1, 0, 0)
    (event,) = events(
        wrapped('{"l":[1]}', m="around"), decode_field="inner", explode_field="l", message_field="m"
    )
    assert message_of(event) == b'"around"'
